//! The content that a document is given in a format for people: what the parameters and the body of a request say.

use axum::body::Bytes;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::{error::Problem, updates::matches};
use crate::{
    actor::{Edit, WriteError},
    document::{
        edit::given::{Given, Told, given},
        export::RootKind,
    },
};

/// The formats that are taken.
const FORMATS: [&str; 4] = ["markdown", "html", "text", "json"];

/// The name of a format, in the API's description.
pub(super) struct FormatName;

impl PartialSchema for FormatName {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(FORMATS)).into()
    }
}

impl ToSchema for FormatName {}

/// What a document is to hold, and where.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    given: Given,
    told: Told,
}

/// What a request gives; none where it gives nothing.
pub(super) fn read(parameters: &[(String, String)], body: &Bytes) -> Result<Option<Contents>, Problem> {
    let (mut format, mut told) = (None, Told::new());
    for (key, value) in parameters {
        match key.as_str() {
            "format" => format = Some(value.as_str()),
            "root" => {
                let kind = value.rsplit_once(':').and_then(|(name, kind)| {
                    let (_, kind) = RootKind::NAMES.iter().find(|(known, _)| *known == kind)?;
                    Some((name, *kind))
                });
                match kind {
                    Some((name, kind)) => told.insert(name.to_owned(), Some(kind)),
                    None => told.insert(value.clone(), None),
                };
            }
            "token" => {}
            _ => {
                let reason = format!("unknown parameter {key:?}; known are format, root and token");
                return Err(Problem::bad_request(reason));
            }
        }
    }
    let text = || {
        let text = str::from_utf8(body)
            .map_err(|error| Problem::bad_request(format!("the body is no UTF-8: {error}")))?;
        Ok::<_, Problem>(text.to_owned())
    };
    let given = match format {
        None if body.is_empty() => return Ok(None),
        None => {
            return Err(Problem::bad_request(
                "the body is of no format: say which by ?format=markdown, html, text or json; POST makes a document \
                 with an update as its content",
            ));
        }
        Some("markdown") => Given::Markdown(text()?),
        Some("html") => Given::Html(text()?),
        Some("text") => Given::Text(text()?),
        Some("json") => {
            let roots = serde_json::from_slice(body);
            Given::Json(roots.map_err(|error| {
                Problem::bad_request(format!(
                    "the body must be an object with root types by their names: {error}"
                ))
            })?)
        }
        Some(other) => {
            let known = FORMATS.join(", ");
            return Err(Problem::bad_request(format!("format: unknown {other:?}; known are {known}")));
        }
    };
    Ok(Some(Contents { given, told }))
}

impl Contents {
    /// How many bytes it has, about.
    pub(super) fn bytes(&self) -> usize {
        self.given.bytes()
    }

    /// Gives a document this content, if it is as it is expected to be.
    pub(super) fn edit(self, expected: Option<String>) -> Edit {
        Box::new(move |document| {
            if let Some(expected) = expected
                && !matches(&expected, document)?
            {
                return Ok(Err(WriteError::Changed));
            }
            Ok(given(document, &self.given, &self.told)?.map_err(|unfit| WriteError::Unfit(unfit.0)))
        })
    }
}
