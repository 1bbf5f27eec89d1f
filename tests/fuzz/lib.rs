//! The parsers of hade and what must be true of them, for the fuzz targets beside this file. The parsers are private to
//! the crate and stay so: their files are compiled here a second time, since they need nothing but each other.
#![allow(dead_code)] // What the application uses and no property does.

#[path = "../../src/http"]
mod http {
    pub mod accept;
    pub mod body;
    pub mod conditions;
    pub mod date;
    pub mod head;
    #[path = "../../tests/properties/mod.rs"]
    pub mod properties;
    pub mod target;
}

pub use http::properties::{check_body, check_files, check_head};
