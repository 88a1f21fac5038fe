//! The one interface that a computer has.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{Failure, Tried};
use crate::local::plan::Step;

const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: i32 = 1;

/// Brings up the loopback interface, by rtnetlink(7).
pub(super) fn loopback_up() -> Result<(), Failure> {
    let what = "bring up the loopback interface";
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());

    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).tried(Step::Network, what)?;
    send(&socket, &message, SendFlags::empty()).tried(Step::Network, what)?;
    let mut answer = [0u8; 1024];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty()).tried(Step::Network, what)?;
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)).tried(Step::Network, what) }
}
