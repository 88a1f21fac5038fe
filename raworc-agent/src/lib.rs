//! raworc-agent
