//! Who may do what, as one table.

use insta::assert_snapshot;
use uuid::Uuid;

use super::{Action, Denied, Principal, Resource, authorize};
use crate::ids::{AgentId, ComputerId, Incarnation, TenantName, UserName};

fn agent_id(n: u128) -> AgentId {
    AgentId::from_uuid(Uuid::from_u128(n))
}

fn user(name: &str) -> UserName {
    UserName::new(name).expect("valid")
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).expect("valid")
}

#[test]
fn every_principal_may_do_what_the_table_says_and_nothing_else() {
    let (home, away) = (tenant("home"), tenant("away"));
    let (ada, bob) = (user("ada"), user("bob"));
    let person = |admin| Principal::User { name: ada.clone(), tenant: home.clone(), admin };
    let program = |incarnation| Principal::Agent {
        tenant: home.clone(),
        agent: agent_id(1),
        computer: ComputerId::from_uuid(Uuid::nil()),
        incarnation: Incarnation(incarnation),
    };
    let principals =
        [("admin", person(true)), ("user", person(false)), ("program", program(2)), ("old program", program(1))];
    let agent = |tenant, id, owner| Resource::Agent { tenant, id: agent_id(id), owner, incarnation: Incarnation(2) };
    let resources = [
        ("agents of home", Resource::Agents { tenant: &home }),
        ("agents of away", Resource::Agents { tenant: &away }),
        ("agent 1 of ada", agent(&home, 1, &ada)),
        ("agent 2 of ada", agent(&home, 2, &ada)),
        ("agent 3 of bob", agent(&home, 3, &bob)),
        ("agent 1 of ada, away", agent(&away, 1, &ada)),
        ("events of home", Resource::Events { tenant: &home }),
        ("events of away", Resource::Events { tenant: &away }),
        ("users", Resource::Users { name: None }),
        ("user ada", Resource::Users { name: Some(&ada) }),
        ("user bob", Resource::Users { name: Some(&bob) }),
        ("installation", Resource::Installation),
    ];
    let mut table = format!("{:12}{:22}", "", "");
    table.extend(Action::ALL.map(|action| format!("{:8}", action.as_str())));
    for (who, principal) in &principals {
        for (what, resource) in &resources {
            let row = Action::ALL.map(|action| match authorize(principal, action, *resource) {
                Ok(()) => "yes     ",
                Err(Denied::Hidden) => "hidden  ",
                Err(Denied::Forbidden) => "no      ",
                Err(Denied::StaleIncarnation { .. }) => "stale   ",
            });
            table = format!("{}\n{who:12}{what:22}{}", table.trim_end(), row.concat());
        }
    }
    assert_snapshot!(table.trim_end(), @r#"
                                      create  get     list    update  operate message exec    delete  serve
    admin       agents of home        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       agents of away        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       agent 1 of ada        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       agent 2 of ada        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       agent 3 of bob        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       agent 1 of ada, away  yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       events of home        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       events of away        yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       users                 yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       user ada              yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       user bob              yes     yes     yes     yes     yes     yes     yes     yes     no
    admin       installation          yes     yes     yes     yes     yes     yes     yes     yes     no
    user        agents of home        yes     no      yes     no      no      no      no      no      no
    user        agents of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    user        agent 1 of ada        yes     yes     yes     yes     yes     yes     yes     yes     no
    user        agent 2 of ada        yes     yes     yes     yes     yes     yes     yes     yes     no
    user        agent 3 of bob        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    user        agent 1 of ada, away  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    user        events of home        no      no      yes     no      no      no      no      no      no
    user        events of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    user        users                 no      no      no      no      no      no      no      no      no
    user        user ada              no      yes     no      yes     no      no      no      no      no
    user        user bob              hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    user        installation          no      no      no      no      no      no      no      no      no
    program     agents of home        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     agents of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     agent 1 of ada        no      no      no      no      no      no      no      no      yes
    program     agent 2 of ada        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     agent 3 of bob        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     agent 1 of ada, away  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     events of home        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     events of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     users                 hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     user ada              hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     user bob              hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    program     installation          hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program agents of home        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program agents of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program agent 1 of ada        stale   stale   stale   stale   stale   stale   stale   stale   stale
    old program agent 2 of ada        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program agent 3 of bob        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program agent 1 of ada, away  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program events of home        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program events of away        hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program users                 hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program user ada              hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program user bob              hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    old program installation          hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden  hidden
    "#);
}
