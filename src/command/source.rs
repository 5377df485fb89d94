//! Whose documents a command is about. A server is asked over HTTP; a folder is asked the same things in the same words,
//! by a router in this process that listens nowhere.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::Bytes;
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
    service::Service,
};
use hyper_util::service::TowerToHyperService;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quire::{
    Server,
    config::{self, Config},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What stands for itself in an address.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How long a server may take until it is there, and until it says something of what it was asked.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
/// Documents, or versions, of a page of a list.
const PAGE: usize = 1_000;

/// Whose documents.
pub(super) enum Source {
    Server { address: String, token: Option<String>, client: reqwest::Client },
    Folder { server: Server, router: TowerToHyperService<Router> },
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// A document in a list, as the API says it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) changed: Option<u64>,
}

#[derive(Deserialize)]
struct Documents {
    documents: Vec<Listed>,
    next: Option<String>,
}

/// A version in a list, as the API says it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) name: Option<String>,
    named_by: Option<String>,
    begin: u64,
    pub(super) time: u64,
    pub(super) bytes: u64,
    pub(super) users: Vec<String>,
}

#[derive(Deserialize)]
struct Versions {
    versions: Vec<Version>,
    next: Option<String>,
}

impl Source {
    /// Opens a folder, or makes ready to ask a server. Only where documents are to come into it, a folder is made.
    pub(super) fn open(told: &config::Source, may_be_new: bool) -> anyhow::Result<Self> {
        let Some(address) = &told.server else {
            let data = told.data.clone().unwrap_or_else(|| Config::default().data);
            if !may_be_new && !data.join("quire.db").exists() {
                bail!(
                    "there are no documents in {}: name the folder with --data, or a server with --server",
                    data.display()
                );
            }
            let server = Server::new(&Config { data, ..Config::default() }).map_err(for_folder)?;
            let router = TowerToHyperService::new(server.router());
            return Ok(Self::Folder { server, router });
        };
        let token = match &told.token_file {
            Some(path) => Some(read_token(path)?),
            None => told.token.as_ref().map(|token| token.expose().trim().to_owned()),
        };
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECTED_WITHIN)
            .read_timeout(ANSWERED_WITHIN)
            .build()
            .context("cannot make ready to ask a server")?;
        Ok(Self::Server { address: address.clone(), token, client })
    }

    /// Lets go of a folder.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        if let Self::Folder { server, .. } = self {
            server.shutdown().await?;
        }
        Ok(())
    }

    /// Asks, and takes the answer as it is.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        match self {
            Self::Server { address, token, client } => {
                let mut request = client.request(method, format!("{address}{path}")).body(body);
                if let Some(token) = token {
                    request = request.header(AUTHORIZATION, format!("Bearer {token}"));
                }
                let answered = async {
                    let response = request.send().await?;
                    Ok::<_, reqwest::Error>(Answer {
                        status: response.status(),
                        body: response.bytes().await?,
                    })
                };
                answered.await.map_err(|error| {
                    // Its own words name the address once more.
                    anyhow!(error.without_url())
                        .context(format!("cannot ask the server at {address}: is it running?"))
                })
            }
            Self::Folder { router, .. } => {
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(Body::from(body))?;
                let Ok(response) = router.call(request).await;
                Ok(Answer {
                    status: response.status(),
                    body: to_bytes(response.into_body(), usize::MAX).await?,
                })
            }
        }
    }

    /// Asks for what must be there.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        self.ask(Method::GET, path, Bytes::new()).await?.good()
    }

    async fn get_json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body).context("the answer is not that of a Quire server of this version")
    }

    /// The next documents whose names begin with `prefix`; nothing comes after where there is no next name.
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: &str,
    ) -> anyhow::Result<(Vec<Listed>, Option<String>)> {
        let (prefix, after) = (encoded(prefix), encoded(after));
        let path = format!("/api/documents?limit={PAGE}&prefix={prefix}&after={after}");
        let Documents { documents, next } = self.get_json(&path).await?;
        Ok((documents, next))
    }

    /// The next versions of a document, newest first.
    pub(super) async fn versions(
        &self,
        document: &str,
        before: Option<&str>,
    ) -> anyhow::Result<(Vec<Version>, Option<String>)> {
        let before = before.map(|before| format!("&before={}", encoded(before))).unwrap_or_default();
        let path = format!("{}/versions?limit={PAGE}{before}", document_path(document));
        let Versions { versions, next } = self.get_json(&path).await?;
        Ok((versions, next))
    }
}

impl Answer {
    /// The body, or the reason why there is none.
    pub(super) fn good(self) -> anyhow::Result<Bytes> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let reason = self.reason();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                bail!(
                    "{reason}; give a token of the level admin in QUIRE_TOKEN or with --token-file (quire token makes one)"
                )
            }
            _ => bail!(reason),
        }
    }

    /// What a refusal says.
    pub(super) fn reason(&self) -> String {
        let problem: Option<Value> = serde_json::from_slice(&self.body).ok();
        match problem.as_ref().and_then(|problem| problem["detail"].as_str()) {
            Some(detail) => detail.to_owned(),
            None => format!(
                "the answer is {}: is there a Quire server of this version at the address?",
                self.status
            ),
        }
    }
}

/// Where a document is in the API.
pub(super) fn document_path(name: &str) -> String {
    format!("/api/documents/{}", encoded(name))
}

/// A value in an address.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &ENCODED).to_string()
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let token =
        fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?;
    Ok(token.trim().to_owned())
}

/// A running server is in the way of a folder only for who does not know that it can be asked.
fn for_folder(error: quire::StartError) -> anyhow::Error {
    use quire::backend::embedded::{Obstacle, OpenError};
    match &error {
        quire::StartError::Data(OpenError { folder, obstacle: Obstacle::InUse(pid) }) => {
            let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            anyhow!(
                "a server is using the folder {}{process}: ask it with --server http://127.0.0.1:8080, or where it listens",
                folder.display()
            )
        }
        _ => error.into(),
    }
}
