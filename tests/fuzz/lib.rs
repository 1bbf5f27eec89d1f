//! The parsers of hade and what must be true of them, for the fuzz targets beside this file. The parsers are private to
//! the crate and stay so: their files are compiled here a second time, since they need nothing but each other.

#[path = "../../src/http"]
mod http {
    pub mod body;
    pub mod head;
    #[path = "../../tests/properties/mod.rs"]
    pub mod properties;
}

pub use http::properties::{check_body, check_head};
