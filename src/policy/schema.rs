//! The JSON Schema of a policy file, for editors. Made from the same declarations as the reader.

use schemars::SchemaGenerator;

use super::document::Document;

pub fn schema() -> serde_json::Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "gatepost policy".into());
    schema.to_value()
}
