//! What the server and the commands beside it are told: by flag, by `QUIRE_…` environment variable, or in a file, in that order of
//! precedence. Read and checked once, at the start.

mod authentication;
mod commands;
mod history;
mod limits;
mod traces;
mod values;
mod webhooks;

use std::{
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::level::Level;

pub use self::{
    authentication::{Authentication, OWN_ISSUER, Secret},
    commands::{Backup, Errand, Export, List, Restore, Source, Versions},
    history::History,
    limits::Limits,
    traces::{Share, Traces},
    webhooks::Webhooks,
};

/// The variable that holds the server's signing secret: no flag does, since everybody on a machine can see them.
const SECRET_VARIABLE: &str = "QUIRE_SECRET";

/// How the server runs; [`Config::default`] is what it does when it is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "QUIRE_LISTEN", value_name = "ADDRESS:PORT", default_value_t = Config::default().listen)]
    pub listen: SocketAddr,
    /// Second address, for /metrics, the health pages and the API; then /metrics is there only
    #[arg(long, env = "QUIRE_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Folder for the documents; it is made where it is missing
    #[arg(long, env = "QUIRE_DATA", value_name = "FOLDER", default_value = "./data")]
    pub data: PathBuf,
    /// Keep documents on this Redis, with all nodes that use it, in place of the folder (redis://host:6379)
    #[arg(long, env = "QUIRE_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// How long a document stays in memory after its last session
    #[arg(long, env = "QUIRE_IDLE", value_name = "SECONDS", default_value = "30", value_parser = values::seconds)]
    pub idle: Duration,
    /// How long a deleted document can be taken back; 0 removes it at once
    #[arg(long, env = "QUIRE_KEEP_DELETED", value_name = "DAYS", default_value = "30", value_parser = values::days)]
    pub keep_deleted: Duration,
    /// In what time sessions are sent away before the server stops; few are sent away faster, and 0 is at once
    #[arg(long, env = "QUIRE_DRAIN", value_name = "SECONDS", default_value = "10", value_parser = values::seconds)]
    pub drain: Duration,
    /// What is logged: error, warn, info, debug or trace, also per module (quire=debug,warn)
    #[arg(long, env = "QUIRE_LOG", value_name = "FILTER", default_value = "info", value_parser = values::log_filter)]
    pub log: String,
    /// How the log is written
    #[arg(long, env = "QUIRE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Who may do what.
    #[command(flatten, next_help_heading = "Who may do what")]
    pub authentication: Authentication,
    /// How documents' histories are kept.
    #[command(flatten, next_help_heading = "History")]
    pub history: History,
    /// Whom the server tells of what happens.
    #[command(flatten, next_help_heading = "Webhooks")]
    pub webhooks: Webhooks,
    /// Where traces of edits go.
    #[command(flatten, next_help_heading = "Traces")]
    pub traces: Traces,
    /// How much is taken from clients.
    #[command(flatten, next_help_heading = "Limits (0 for none)")]
    pub limits: Limits,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people at a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin_listen: None,
            data: "./data".into(),
            redis: None,
            idle: Duration::from_secs(30),
            keep_deleted: Duration::from_secs(30 * 24 * 60 * 60),
            drain: Duration::from_secs(10),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            authentication: Authentication::default(),
            history: History::default(),
            webhooks: Webhooks::default(),
            traces: Traces::default(),
            limits: Limits::default(),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, a variable or a line of the file that stands for a flag; also the help that was asked for.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// A variable that looks like one of ours and is none.
    #[error("unknown environment variable {name}={value:?}; known are {known}")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// Its value.
        value: OsString,
        /// The names that would be right.
        known: String,
    },
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("the configuration file {}: {reason}", path.display())]
    FileContent {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Contradiction(String),
}

/// The version with the commit, where it is a release, and what is built into it.
fn version() -> String {
    let features = [
        ("demo", cfg!(feature = "demo")),
        ("mimalloc", cfg!(feature = "mimalloc")),
        ("otlp", cfg!(feature = "otlp")),
    ];
    let features: Vec<_> = features.into_iter().filter_map(|(name, is_in)| is_in.then_some(name)).collect();
    let commit =
        option_env!("BUILT_FROM_COMMIT").map(|commit| format!(", commit {commit}")).unwrap_or_default();
    format!("{} (features: {}{commit})", env!("CARGO_PKG_VERSION"), features.join(", "))
}

/// Collaboration server for Yjs documents.
#[derive(Debug, Parser)]
#[command(name = "quire", version = version(), subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the same as no command)
    Serve(Box<Serve>),
    /// Print a token that this server accepts, signed with its own secret
    Token(TokenRequest),
    /// Take over the documents of another server
    Import(ImportRequest),
    #[command(flatten)]
    Errand(Errand),
}

#[derive(Debug, Args)]
struct Serve {
    /// Read settings from this TOML file, by the names of the flags (listen = "0.0.0.0:8080")
    #[arg(long, env = "QUIRE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Config,
}

/// What a token is to say.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct TokenRequest {
    /// The document, or all whose names begin so (team/*); may be repeated
    #[arg(long, value_name = "NAME or PATTERN", required = true)]
    pub document: Vec<String>,
    /// The user
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// What the user may do
    #[arg(long, default_value = "write")]
    pub level: Level,
    /// How long the token is good
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = values::seconds)]
    pub ttl: Duration,
    /// Folder of the server whose secret signs it
    #[arg(long, env = "QUIRE_DATA", value_name = "FOLDER", default_value = "./data")]
    pub data: PathBuf,
    /// File with the server's secret
    #[arg(long, env = "QUIRE_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The secret itself, from the variable `QUIRE_SECRET`.
    #[arg(skip)]
    pub secret: Option<Secret>,
}

/// Where documents are to be taken over from, and where they are to go.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImportRequest {
    /// Which server has kept them
    #[arg(value_name = "SERVER")]
    pub from: OtherServer,
    /// Where it has kept them; nothing is changed there
    #[arg(value_name = "FOLDER or FILE")]
    pub store: PathBuf,
    /// Folder for the documents, as the server is told; no server may be running on it
    #[arg(long, env = "QUIRE_DATA", value_name = "FOLDER", default_value = "./data")]
    pub data: PathBuf,
    /// Redis for the documents, in place of the folder; servers may be running on it
    #[arg(long, env = "QUIRE_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
}

/// A server whose documents can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OtherServer {
    /// The LevelDB folder that YPERSISTENCE has named
    YWebsocket,
    /// The SQLite file of @hocuspocus/extension-sqlite
    Hocuspocus,
    /// The folder of "y-sweet serve FOLDER"
    YSweet,
}

/// What the process is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Run the server.
    Serve(Box<Config>),
    /// Print a token.
    Token(TokenRequest),
    /// Take over documents.
    Import(ImportRequest),
    /// Do something with the documents of a server or a folder.
    Errand(Errand),
}

impl Task {
    /// What this process is to do, from its arguments, its environment and the file that they name.
    pub fn from_process() -> Result<Self, ConfigError> {
        check_variables(std::env::vars_os())?;
        let secret_in = |variable| std::env::var(variable).ok().map(Secret::new);
        let secret = secret_in(SECRET_VARIABLE);
        let mut task = Self::read(&std::env::args_os().collect::<Vec<_>>())?;
        match &mut task {
            Self::Serve(config) => {
                config.authentication.secret = secret;
                config.authentication.check(config.listen, config.admin_listen)?;
                config.webhooks.secret = secret_in(webhooks::SECRET_VARIABLE);
            }
            Self::Token(request) => request.secret = secret,
            Self::Import(_) => {}
            Self::Errand(errand) => {
                errand.source_mut().read_variables().map_err(ConfigError::Contradiction)?;
            }
        }
        Ok(task)
    }

    /// What arguments, the program's name first, and the file that they name say.
    fn read(arguments: &[OsString]) -> Result<Self, ConfigError> {
        let cli = parse(Cli::command(), arguments)?;
        let Some(path) = cli.serve().and_then(|serve| serve.config.as_ref()) else { return Ok(cli.into()) };
        // What stands in the file takes the place of the defaults, so it is read like a flag.
        let command = with_defaults_of(path, Cli::command())?;
        Ok(parse(command, arguments)?.into())
    }
}

fn parse(command: clap::Command, arguments: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

impl Cli {
    fn serve(&self) -> Option<&Serve> {
        match &self.command {
            Some(Command::Serve(serve)) => Some(serve),
            Some(Command::Token(_) | Command::Import(_) | Command::Errand(_)) => None,
            None => Some(&self.serve),
        }
    }
}

impl From<Cli> for Task {
    fn from(cli: Cli) -> Self {
        match cli.command {
            Some(Command::Serve(serve)) => Self::Serve(Box::new(serve.settings)),
            Some(Command::Token(request)) => Self::Token(request),
            Some(Command::Import(request)) => Self::Import(request),
            Some(Command::Errand(errand)) => Self::Errand(errand),
            None => Self::Serve(Box::new(cli.serve.settings)),
        }
    }
}

/// The command with what a file says in place of the defaults.
fn with_defaults_of(path: &Path, command: clap::Command) -> Result<clap::Command, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    let refuse = |reason: String| ConfigError::FileContent { path: path.to_owned(), reason };
    let settings: toml::Table = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let known = settings_of(&command);
    if let Some(name) = settings.keys().find(|name| !known.contains(name)) {
        return Err(refuse(format!("unknown setting {name:?}; known are {}", known.join(", "))));
    }
    let settings =
        settings.into_iter().map(|(name, value)| (name, values::of_file(value))).collect::<Vec<_>>();
    let with_defaults = |command: clap::Command| {
        settings.iter().fold(command, |command, (name, values)| {
            command.mut_args(|argument| match argument.get_long() == Some(name) {
                true => argument.default_values(values.clone()),
                false => argument,
            })
        })
    };
    Ok(with_defaults(command).mut_subcommand("serve", with_defaults))
}

/// The names of all settings that a file may hold.
fn settings_of(command: &clap::Command) -> Vec<String> {
    let settings = command.get_arguments().filter(|argument| {
        matches!(argument.get_action(), ArgAction::Set | ArgAction::SetTrue | ArgAction::Append)
    });
    let names = settings.filter_map(|setting| setting.get_long()).filter(|name| *name != "config");
    names.map(str::to_owned).collect()
}

/// Refuses variables that look like settings and are none: a typing mistake would go unnoticed.
fn check_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<(), ConfigError> {
    let command = Cli::command();
    let of_flags = command.get_arguments().filter_map(|argument| argument.get_env());
    let known: Vec<_> = of_flags
        .chain(
            [SECRET_VARIABLE, webhooks::SECRET_VARIABLE].iter().chain(&commands::VARIABLES).map(OsStr::new),
        )
        .collect();
    for (name, value) in variables {
        let Some(text) = name.to_str().filter(|name| name.starts_with("QUIRE_")) else { continue };
        // Kubernetes sets such variables where a service is called "quire".
        let kubernetes =
            text == "QUIRE_PORT" || text.starts_with("QUIRE_PORT_") || text.starts_with("QUIRE_SERVICE_");
        if !kubernetes && !known.contains(&name.as_os_str()) {
            let known = known.iter().filter_map(|name| name.to_str()).collect::<Vec<_>>().join(", ");
            return Err(ConfigError::UnknownVariable { name: text.to_owned(), value, known });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arguments: &[&str]) -> Result<Task, ConfigError> {
        let arguments = ["quire"].iter().chain(arguments);
        Task::read(&arguments.copied().map(OsString::from).collect::<Vec<_>>())
    }

    fn read(arguments: &[&str]) -> Result<Config, ConfigError> {
        match task(arguments)? {
            Task::Serve(config) => Ok(*config),
            other => panic!("{other:?}"),
        }
    }

    fn read_with(file: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("quire.toml");
        std::fs::write(&path, file).unwrap();
        read(&[&["--config", path.to_str().unwrap()], arguments].concat())
    }

    #[test]
    fn the_version_says_what_is_in_it() {
        let said = Cli::command().render_version();
        let expected = format!("quire {} (features: ", env!("CARGO_PKG_VERSION"));
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(said.contains("demo"), cfg!(feature = "demo"));
    }

    #[test]
    fn no_command_is_serve() {
        for arguments in [&["--listen", "[::1]:9"][..], &["serve", "--listen", "[::1]:9"]] {
            assert_eq!(read(arguments).unwrap().listen, "[::1]:9".parse().unwrap());
        }
        assert_eq!(read(&[]).unwrap(), Config::default());
    }

    #[test]
    fn a_token_is_asked_for_with_its_own_flags() {
        let Task::Token(request) = task(&["token", "--document", "team/*", "--user", "alice"]).unwrap()
        else {
            panic!("another task");
        };
        assert_eq!((request.level, request.ttl), (Level::Write, Duration::from_secs(3_600)));
        let error = task(&["token", "--user", "alice"]).unwrap_err().to_string();
        assert!(error.contains("--document"), "{error}");
    }

    #[test]
    fn an_import_is_told_from_where_to_where() {
        let arguments = ["import", "y-websocket", "old", "--redis", "redis://127.0.0.1"];
        let Task::Import(request) = task(&arguments).unwrap() else { panic!("another task") };
        assert_eq!((request.from, request.store), (OtherServer::YWebsocket, "old".into()));
        assert_eq!((request.data, request.redis), ("./data".into(), Some("redis://127.0.0.1".to_owned())));
        let error = task(&["import", "etherpad", "old"]).unwrap_err().to_string();
        assert!(error.contains("etherpad") && error.contains("y-websocket, hocuspocus, y-sweet"), "{error}");
        let error = task(&["import", "y-sweet"]).unwrap_err().to_string();
        assert!(error.contains("FOLDER or FILE"), "{error}");
    }

    #[test]
    fn an_errand_is_about_a_server_or_a_folder() {
        let errand = |arguments: &[&str]| match task(arguments) {
            Ok(Task::Errand(errand)) => Ok(errand),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        let read = errand(&["backup", "all.tar.zst", "--server", "https://quire.example.com/docs/"]).unwrap();
        assert_eq!(read.source().server.as_deref(), Some("https://quire.example.com/docs"));
        let read = errand(&["restore", "-", "--replace", "--data", "there"]).unwrap();
        assert_eq!((&read.source().server, read.source().data.clone()), (&None, Some("there".into())));
        let error = errand(&["list", "--server", "ftp://there"]).unwrap_err();
        assert!(error.contains("ftp://there") && error.contains("http://127.0.0.1:8080"), "{error}");
        let error = errand(&["list", "--server", "http://there", "--data", "here"]).unwrap_err();
        assert!(error.contains("--data") && error.contains("--server"), "{error}");
        let error = errand(&["export", "letter", "--format", "pdf"]).unwrap_err();
        assert!(error.contains("pdf") && error.contains("prosemirror"), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        let error = read(&["--listen", "nowhere"]).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("--listen <ADDRESS:PORT>"), "{error}");
        let error = read(&["--log-format", "xml"]).unwrap_err().to_string();
        assert!(error.contains("xml") && error.contains("text, json"), "{error}");
        let error = read(&["--log", "a=b=c"]).unwrap_err().to_string();
        assert!(error.contains("a=b=c"), "{error}");
        let error = read(&["--otlp", "collector:4318"]).unwrap_err().to_string();
        assert!(error.contains("collector:4318") && error.contains("http://127.0.0.1:4318"), "{error}");
        let error = read(&["--max-frame", "many"]).unwrap_err().to_string();
        assert!(error.contains("many") && error.contains("--max-frame"), "{error}");
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let file = "listen = '127.0.0.1:1'\nidle = 7\nlog-format = 'json'\nallow-origin = ['https://a.example', 'https://b.example']\nauth = true";
        let config = read_with(file, &["--listen", "127.0.0.1:2"]).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.idle, Duration::from_secs(7));
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.authentication.allow_origin, ["https://a.example", "https://b.example"]);
        assert!(config.authentication.auth);
        assert_eq!(config.data, Config::default().data);
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        let config = read(&["--trusted-proxies", "10.0.0.5,10.1.0.0/16,fd00::1"]).unwrap();
        let networks = config.authentication.trusted_proxies.iter().map(ToString::to_string);
        assert_eq!(networks.collect::<Vec<_>>(), ["10.0.0.5/32", "10.1.0.0/16", "fd00::1/128"]);
        let error = read(&["--trusted-proxies", "proxy.example.com"]).unwrap_err().to_string();
        assert!(error.contains("proxy.example.com") && error.contains("--trusted-proxies"), "{error}");
    }

    #[test]
    fn unknown_settings_stop_the_start() {
        let error = read_with("lisen = '127.0.0.1:1'", &[]).unwrap_err().to_string();
        assert!(error.contains("lisen") && error.contains("listen"), "{error}");
        let error = read_with("idle = 'long'", &[]).unwrap_err().to_string();
        assert!(error.contains("long") && error.contains("--idle"), "{error}");
        let variable = |name: &str| check_variables([(name.into(), "1".into())].into_iter());
        let error = variable("QUIRE_LISEN").unwrap_err().to_string();
        assert!(error.contains("QUIRE_LISEN=\"1\"") && error.contains("QUIRE_LISTEN"), "{error}");
        assert!(variable("QUIRE_LISTEN").is_ok());
        assert!(variable("QUIRE_SECRET").is_ok());
        assert!(variable("QUIRE_WEBHOOK_SECRET").is_ok());
        assert!(variable("QUIRE_SERVER").is_ok() && variable("QUIRE_TOKEN").is_ok());
        assert!(variable("QUIRE_PORT_8080_TCP").is_ok());
        assert!(variable("HOME").is_ok());
    }
}
