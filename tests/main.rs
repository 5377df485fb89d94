//! All tests at the border are one program: it is built and linked once, and those that wait do so beside each other.
//! `cargo test --test all sync::` runs those of one file.

#![allow(unreachable_pub, reason = "nobody imports a test")]

mod common;

mod access;
mod admin;
mod api;
mod applications;
mod backend;
mod cluster;
mod command;
mod deletion;
mod drain;
mod edits;
mod exports;
mod floors;
mod fuzz_corpus;
mod history;
mod hocuspocus;
mod hostile;
mod hostile_connections;
mod import;
mod lifecycle;
mod limits;
mod limits_of_documents;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod persistence;
mod presence;
mod redis_cluster;
mod redis_link;
mod sessions;
mod simulation;
mod sync;
mod webhooks;
mod y_sweet;
