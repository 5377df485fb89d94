//! `/api/documents/{name}/sessions`: who is in a document.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{
    Shared,
    asking::{Named, ask},
    authorize::Caller,
    error::Problem,
};
use crate::{actor::DocumentHandle, level::Level};

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
    Named(name): Named,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Whose { user }) = whose.map_err(|error| Problem::bad_request(error.body_text()))?;
    access.require(&name, Level::Admin)?;
    let end = |document: DocumentHandle| {
        let user = user.clone();
        async move { Ok(document.end_sessions(user).await?) }
    };
    let ended = ask(&shared, &name, end).await?;
    info!(document = %name, user, ended, by = access.user(), "sessions were ended");
    Ok(Json(json!({ "ended": ended })))
}
