//! The content that a document is given in a format for people: what the parameters and the body of a request say.

use axum::body::Bytes;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    documents::{named, one_of, split},
    error::Problem,
    updates::unless_changed,
};
use crate::{
    actor::{Edit, WriteError},
    document::{
        Document,
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
        one_of(FORMATS)
    }
}

impl ToSchema for FormatName {}

/// What a document is to hold, and where.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    given: Given,
    told: Told,
    /// How much it holds while it waits, about: JSON takes more than its text.
    bytes: usize,
}

/// What a request gives; none where it gives nothing.
pub(super) fn read(parameters: &[(String, String)], body: &Bytes) -> Result<Option<Contents>, Problem> {
    let (format, roots) = split(parameters)?;
    let told: Told = roots
        .into_iter()
        .map(|root| {
            let kind = root.rsplit_once(':');
            let kind =
                kind.and_then(|(name, kind)| Some((name, named(&RootKind::NAMES, "root", kind).ok()?)));
            kind.map_or((root.to_owned(), None), |(name, kind)| (name.to_owned(), Some(kind)))
        })
        .collect();
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
    let bytes = body.len() * if matches!(given, Given::Json(_)) { 4 } else { 1 };
    Ok(Some(Contents { given, told, bytes }))
}

impl Contents {
    /// How many bytes it has, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a document that holds nothing can be given this.
    pub(super) fn check(&self) -> Result<(), Problem> {
        match given(&Document::default(), &self.given, &self.told) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(unfit)) => Err(WriteError::from(unfit).into()),
            Err(error) => Err(WriteError::Refused(error.to_string()).into()),
        }
    }

    /// Gives a document this content, if it is as it is expected to be.
    pub(super) fn edit(self, expected: Option<String>) -> Edit {
        unless_changed(expected, move |document| {
            Ok(given(document, &self.given, &self.told)?.map_err(WriteError::from))
        })
    }
}
