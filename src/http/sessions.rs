//! `/api/documents/{name}/sessions`: who is in a document.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{Shared, authorize::Caller, error::Problem};
use crate::{hub::Unopened, level::Level, name::DocumentName};

/// How often a document is asked that is being closed at that moment.
const TRIES: usize = 5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    user: Option<String>,
}

/// `DELETE /api/documents/{name}/sessions`: ends the sessions of `?user=`, or all, on every node. The answer says how
/// many they were on this one.
pub(crate) async fn end(
    State(shared): State<Shared>,
    Caller(access): Caller,
    name: Result<Path<String>, PathRejection>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(name) = name.map_err(|error| Problem::bad_request(error.body_text()))?;
    let Query(Whose { user }) = whose.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = DocumentName::new(&name).map_err(Problem::bad_request)?;
    access.require(&name, Level::Admin)?;
    for _ in 0..TRIES {
        let document = shared.hub.open(&name).map_err(|unopened: Unopened| Problem::unavailable(unopened))?;
        if let Ok(ended) = document.end_sessions(user.clone()).await {
            info!(document = %name, user, ended, by = access.user(), "sessions were ended");
            return Ok(Json(json!({ "ended": ended })));
        }
    }
    Err(Problem::unavailable("the document cannot be opened at the moment; try again"))
}
