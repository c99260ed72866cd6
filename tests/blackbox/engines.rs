//! Engines of today: what an image is on each of them, and what becomes of a deployment whose engine
//! changes. What only one kind of engine shows is skipped on the others, see `tests/engines.sh`.

mod api;
mod compose;
mod identity;
mod platform;
mod podman;
