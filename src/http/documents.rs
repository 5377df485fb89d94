//! `/api/documents`: what applications ask of documents.

use std::collections::BTreeMap;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Shared,
    asking::{Named, ask, not_there},
    authorize::Caller,
    error::{Body, Problem, Refusals},
};
use crate::{
    actor::DocumentHandle,
    document::{
        Document, UpdateError,
        export::{ExportError, Format, RootKind, export as export_document},
    },
    level::Level,
};

/// The name of a format, in the API's description.
pub(super) struct FormatName;

impl PartialSchema for FormatName {
    fn schema() -> RefOr<Schema> {
        one_of(Format::NAMES.map(|(name, _)| name))
    }
}

/// What a parameter may be, in the API's description.
pub(super) fn one_of<const N: usize>(names: [&'static str; N]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

impl ToSchema for FormatName {}

/// What a look at a document found.
enum Found {
    Unchanged { etag: String },
    Content { etag: String, content: Vec<u8> },
}

/// Exports a document
///
/// In the format that `format` or the `Accept` header names; as a Yjs update where neither does.
#[utoipa::path(
    method(get, head), path = "/api/documents/{name}", operation_id = "export", tag = "documents",
    params(
        ("name" = String, Path, description = "The document's name."),
        ("format" = inline(Option<FormatName>), Query, description = "The format."),
        ("root" = Option<Vec<String>>, Query, explode = true,
            description = "What a root type is where its content does not tell: its name, a colon, and `text`, `map`, \
                `array` or `xml`.", example = json!(["content:text"])),
        ("Accept" = Option<String>, Header, description = "Which formats are wanted, where `format` is not given."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an export that is at hand."),
    ),
    responses(
        (status = 200, description = "The document.", headers(("ETag" = String)),
            content(
                (Vec<u8> = "application/octet-stream"), (serde_json::Value = "application/json"),
                (String = "text/plain"), (String = "application/xml"), (String = "text/html"),
                (String = "text/markdown"),
            )),
        (status = 304, description = "It is what is at hand."),
        (status = 406, description = "There is no such format.", body = Body, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub(crate) async fn export(
    State(shared): State<Shared>,
    Caller(access): Caller,
    Named(name): Named,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Read)?;
    let (format, roots) = read_parameters(&parameters)?;
    let format = match format {
        Some(format) => format,
        None => accepted(&headers)?,
    };
    let known: Option<String> =
        headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let look = move |document: &Document| look(document, format, &roots, known.as_deref());
    let read = |document: DocumentHandle| {
        let look = look.clone();
        async move {
            let exists = document.exists().await?;
            let found = document.read(look).await?;
            Ok(exists.then_some(found))
        }
    };
    let found = ask(&shared, &name, read).await?.ok_or_else(|| not_there(&name))?;
    let found = found.map_err(|error| match error {
        ExportError::WrongKind { .. } => Problem::bad_request(error),
        ExportError::Engine(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error),
    })?;
    // The same address gives several formats, and what was seen once must be asked for again.
    let caching = [(header::VARY, "accept"), (header::CACHE_CONTROL, "no-cache")];
    // What people wrote is no page of this server: opened in a browser, it must not act as one.
    let guarding =
        [(header::CONTENT_SECURITY_POLICY, "sandbox"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok(match found {
        Found::Unchanged { etag } => {
            (StatusCode::NOT_MODIFIED, caching, [(header::ETAG, etag)]).into_response()
        }
        Found::Content { etag, content } => {
            let about = [(header::ETAG, etag), (header::CONTENT_TYPE, format.media_type().to_owned())];
            (caching, guarding, about, content).into_response()
        }
    })
}

fn look(
    document: &Document,
    format: Format,
    roots: &BTreeMap<String, RootKind>,
    known: Option<&str>,
) -> Result<Found, ExportError> {
    let etag = etag(document, format, roots)?;
    if known.is_some_and(|known| known == "*" || known.split(',').any(|known| same_tag(known, &etag))) {
        return Ok(Found::Unchanged { etag });
    }
    let content = export_document(document, format, roots)?;
    Ok(Found::Content { etag, content })
}

/// The tag of a document that is exported so.
fn etag(
    document: &Document,
    format: Format,
    roots: &BTreeMap<String, RootKind>,
) -> Result<String, UpdateError> {
    let version = format!("{:032x} {format:?} {roots:?}", document.fingerprint()?);
    Ok(format!("\"{:032x}\"", xxh3_128(version.as_bytes())))
}

/// The tag of a document as an update.
pub(super) fn update_etag(document: &Document) -> Result<String, UpdateError> {
    etag(document, Format::Update, &BTreeMap::new())
}

/// Whether a tag of `If-None-Match` is this one, compared weakly (RFC 9110, section 13.1.2): somebody in between
/// may have compressed the answer.
fn same_tag(known: &str, etag: &str) -> bool {
    let known = known.trim();
    known.strip_prefix("W/").unwrap_or(known) == etag
}

/// The format that is asked for, and the kinds of root types that are told.
pub(super) fn read_parameters(
    parameters: &[(String, String)],
) -> Result<(Option<Format>, BTreeMap<String, RootKind>), Problem> {
    let (format, told) = split(parameters)?;
    let format = format.map(|format| named(&Format::NAMES, "format", format)).transpose()?;
    let mut roots = BTreeMap::new();
    for value in told {
        let Some((name, kind)) = value.rsplit_once(':') else {
            return Err(Problem::bad_request(format!(
                "root={value:?} must be a name and a kind, as in root=content:text"
            )));
        };
        roots.insert(name.to_owned(), named(&RootKind::NAMES, "root", kind)?);
    }
    Ok((format, roots))
}

/// The format and the root types that parameters name.
pub(super) fn split(parameters: &[(String, String)]) -> Result<(Option<&str>, Vec<&str>), Problem> {
    let (mut format, mut roots) = (None, Vec::new());
    for (key, value) in parameters {
        match key.as_str() {
            "format" => format = Some(value.as_str()),
            "root" => roots.push(value.as_str()),
            // Looked at elsewhere.
            "token" => {}
            _ => {
                return Err(Problem::bad_request(format!(
                    "unknown parameter {key:?}; known are format, root and token"
                )));
            }
        }
    }
    Ok((format, roots))
}

/// What a parameter names.
pub(super) fn named<T: Copy>(names: &[(&str, T)], parameter: &str, value: &str) -> Result<T, Problem> {
    names.iter().find(|(name, _)| *name == value).map(|(_, found)| *found).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        Problem::bad_request(format!("{parameter}: unknown {value:?}; known are {}", known.join(", ")))
    })
}

/// The first format that the `Accept` header names, best first; an update where it does not care.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Format, Problem> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Format::Update) };
    let accept = accept.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut ranges: Vec<(f32, &str)> = accept
        .split(',')
        .map(|range| {
            let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality =
                parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q=")?.parse().ok());
            (quality.unwrap_or(1.0), media_type.trim())
        })
        .filter(|(quality, _)| *quality > 0.0)
        .collect();
    // Stable, so that of equal ones the first named comes first.
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let format = ranges.into_iter().find_map(|(_, media_type)| match media_type {
        "application/octet-stream" | "application/*" | "*/*" => Some(Format::Update),
        "application/json" => Some(Format::Json),
        "text/plain" | "text/*" => Some(Format::Text),
        "application/xml" | "text/xml" => Some(Format::Xml),
        "text/html" => Some(Format::Html),
        "text/markdown" => Some(Format::Markdown),
        _ => None,
    });
    format.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("no format for Accept: {accept}; there are application/octet-stream, application/json, text/plain, application/xml, text/html and text/markdown"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Option<Format> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]);
        accepted(&headers).ok()
    }

    #[test]
    fn the_best_of_what_is_accepted_is_given() {
        assert_eq!(accept("application/json"), Some(Format::Json));
        assert_eq!(accept("text/plain;q=0.5, application/xml"), Some(Format::Xml));
        assert_eq!(accept("application/json;q=0, */*;q=0.1"), Some(Format::Update));
        assert_eq!(accept("text/html, text/*;q=0.5"), Some(Format::Html));
        assert_eq!(accept("text/markdown"), Some(Format::Markdown));
        assert_eq!(accept("image/png"), None);
        assert_eq!(accepted(&HeaderMap::new()).unwrap(), Format::Update);
    }
}
