//! `cargo xtask demo`: placeholder
