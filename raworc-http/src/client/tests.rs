//! Client and server over a loopback connection.
