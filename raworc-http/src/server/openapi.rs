//! The description of the API, beyond what stands at each handler.

use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr,
    Required, ResponseBuilder, Type,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::api::{ErrorBody, ErrorInfo};

/// The header by which a request that is sent again has no second effect.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it stands for a header in the description")]
pub struct IdempotencyHeader {
    /// 1 to 255 characters: the same request with the same key has one effect and one answer, for a day.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

/// The header that makes a change conditional.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it stands for a header in the description")]
pub struct IfMatchHeader {
    /// The generation that the change is for: the `ETag` of the agent.
    #[param(rename = "If-Match")]
    generation: Option<String>,
}

/// The header with which a stream is resumed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it stands for a header in the description")]
pub struct LastEventIdHeader {
    /// The id of the last event that was seen; empty is as absent.
    #[param(rename = "Last-Event-ID")]
    id: Option<u64>,
}

/// How long a call waits.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it stands for a parameter in the description")]
pub struct WaitQuery {
    /// How long to wait for it: `30s`, `500ms`, `2m` or seconds, 10 minutes at most. The answer is what is then. Where
    /// the server closes before that, it bears `Wait-Interrupted: true`: ask again. So does what was done where the token ends.
    wait: Option<String>,
}

/// The empty description.
pub(super) fn base() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").build();
    let info = InfoBuilder::new()
        .title("Raworc")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A computer of its own for every AI agent. Every error has the shape of ErrorBody; every answer bears \
             `x-request-id`.",
        ))
        .license(Some(license))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Adds what is true of every operation: the token, the errors that any call may get, the tenant in nested paths.
pub(super) fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.security_schemes.insert("token".into(), RefOr::T(SecurityScheme::Http(scheme)));
    for (name, schema) in [("ErrorBody", ErrorBody::schema()), ("ErrorInfo", ErrorInfo::schema())] {
        components.schemas.insert(name.into(), schema);
    }
    debug_assert_eq!(ErrorBody::name(), "ErrorBody");
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    for (path, item) in &mut document.paths.paths {
        let of_tenant = path.contains("/tenants/{tenant}/");
        for operation in operations(item) {
            if is_of_computers(operation) {
                operation.operation_id = operation.operation_id.take().map(|id| format!("computer_{id}"));
            }
            for (name, description) in PLACES {
                if path.contains(&format!("{{{name}}}")) {
                    add_place(operation, name, description);
                }
            }
            if of_tenant {
                operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_in_tenant"));
            }
            operation.parameters.iter_mut().flatten().for_each(sharpen);
            add_errors(path, operation);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// What stands in paths, the outermost last, as each is put before the others.
const PLACES: [(&str, &str); 3] =
    [("id", "The id of the command."), ("name", "The agent's name."), ("tenant", "The tenant's name.")];

fn add_place(operation: &mut Operation, name: &str, description: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    let known = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.name == name);
    if parameters.iter().any(known) {
        return;
    }
    let schema = match name {
        "name" => RefOr::Ref(Ref::from_schema_name("AgentName")),
        "tenant" => RefOr::Ref(Ref::from_schema_name("TenantName")),
        _ => text(r"^[A-Za-z0-9-]{1,64}$").build().into(),
    };
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build();
    parameters.insert(0, RefOr::T(parameter));
}

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

/// Says exactly what a parameter takes, where its type in Rust says less.
fn sharpen(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let schema = match parameter.name.as_str() {
        "wait" => text("^(([0-5]?[0-9]{1,2}|600)s?|([0-5]?[0-9]{1,5}|600000)ms|([0-9]|10)m)$"),
        "Idempotency-Key" => text("^[!-~]([ -~]*[!-~])?$").min_length(Some(1)).max_length(Some(255)),
        "If-Match" => text(r#"^(\*|[0-9]+|"[0-9]+")$"#),
        "path" => text(r"^[^\x00]+$").min_length(Some(1)).max_length(Some(4096)),
        "mode" => text("^[0-7]{1,4}$"),
        "Last-Event-ID" => text("^[0-9]*$"),
        "since" | "tail" | "limit" => whole(u64::from(parameter.name == "limit")),
        // Opaque where it is a text.
        "after" if is_number(parameter) => whole(0),
        _ => return,
    };
    parameter.schema = Some(schema.build().into());
}

/// As many as 64 bits count, from `least` on.
fn whole(least: u64) -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(Type::Integer);
    number.minimum(Some(least as usize)).maximum(Some(usize::MAX))
}

fn is_number(parameter: &Parameter) -> bool {
    match &parameter.schema {
        Some(RefOr::T(Schema::Object(schema))) => schema.schema_type == Type::Integer.into(),
        _ => false,
    }
}

fn is_of_computers(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == "computers")
}

fn add_errors(path: &str, operation: &mut Operation) {
    let public = operation.security.is_some();
    let of_computers = is_of_computers(operation);
    let is_json =
        |body: &_| matches!(body, RefOr::T(RequestBody { content, .. }) if content.contains_key("application/json"));
    let may_be_busy = !public && operation.request_body.as_ref().is_some_and(is_json);
    let mut errors = vec![("500", "`internal`")];
    if path.starts_with(crate::api::BASE) {
        errors.push(("400", "`invalid`, `malformed`"));
        errors.push(("503", if may_be_busy { "`busy`, `store_unavailable`" } else { "`store_unavailable`" }));
        errors.push(("507", if of_computers { "`disk_full`, `no_space`" } else { "`disk_full`" }));
    }
    if !public {
        errors.push(("401", "`unauthenticated`"));
    }
    if of_computers {
        errors.push(("403", "`permission_denied`"));
        errors.push(("409", "`agent_asleep`, `agent_state`, `contended`, or a file stands in the way"));
        errors.push(("502", "`program_failed`"));
        errors.push(("504", "`timed_out`"));
    }
    if path.contains('{') || path.ends_with("/agents") || path.ends_with("/metrics") {
        errors.push(("404", "`not_found`"));
    }
    if operation.request_body.is_some() {
        errors.push(("408", "`request_timeout`"));
        errors.push(("413", "`too_large`"));
        errors.push(("415", "`unsupported_media_type`"));
    }
    for (status, codes) in errors {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| {
            let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
            RefOr::T(ResponseBuilder::new().description(codes).content("application/json", body).build())
        });
    }
}
