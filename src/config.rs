//! What the server is told: by flag, by `QUIRE_…` environment variable, or in a file, in that order of
//! precedence. Read and checked once, at the start.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

/// How the server runs; [`Config::default`] is what it does when it is told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The folder of the embedded store.
    pub data: PathBuf,
    /// The Redis that keeps the documents and joins the nodes; the embedded store where there is none.
    pub redis: Option<String>,
    /// How long a document stays in memory after its last session.
    pub idle: Duration,
    /// What is logged, as `tracing` filters.
    pub log: String,
    /// How the log is written.
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
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
            data: "./data".into(),
            redis: None,
            idle: Duration::from_secs(30),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, or a variable that stands for a flag; also the help that was asked for.
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
    #[error("the configuration file {}: {error}", path.display())]
    FileContent {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// The log filter is not understood.
    #[error("--log {value:?} is no log filter ({error}); examples: info, debug, quire=debug,warn")]
    Log {
        /// What was given.
        value: String,
        /// Why.
        error: String,
    },
}

/// Collaboration server for Yjs documents.
#[derive(Debug, Parser)]
#[command(name = "quire", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the same as no command)
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// Read settings from this TOML file, by the names of the flags (listen = "0.0.0.0:8080")
    #[arg(long, env = "QUIRE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The settings, as they stand on the command line, in the environment and in the file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "QUIRE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Folder for the documents; it is made where it is missing [default: ./data]
    #[arg(long, env = "QUIRE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Keep documents on this Redis, with all nodes that use it, in place of the folder (redis://host:6379)
    #[arg(long, env = "QUIRE_REDIS", value_name = "URL", hide_env_values = true)]
    redis: Option<String>,
    /// How long a document stays in memory after its last session [default: 30]
    #[arg(long, env = "QUIRE_IDLE", value_name = "SECONDS")]
    idle: Option<u32>,
    /// What is logged: error, warn, info, debug or trace, also per module (quire=debug,warn) [default: info]
    #[arg(long, env = "QUIRE_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How the log is written [default: text]
    #[arg(long, env = "QUIRE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

impl Config {
    /// The configuration of this process, from its arguments, its environment and the file that they name.
    pub fn from_process() -> Result<Self, ConfigError> {
        check_variables(std::env::vars_os())?;
        let cli = Cli::try_parse()?;
        let serve = match cli.command {
            Some(Command::Serve(serve)) => serve,
            None => cli.serve,
        };
        let file = serve.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        serve.settings.or(file).resolve()
    }
}

impl Settings {
    /// These, and `other` where these say nothing.
    fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            data: self.data.or(other.data),
            redis: self.redis.or(other.redis),
            idle: self.idle.or(other.idle),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
        }
    }

    fn resolve(self) -> Result<Config, ConfigError> {
        let default = Config::default();
        let log = self.log.unwrap_or(default.log);
        if let Err(error) = log.parse::<tracing_subscriber::EnvFilter>() {
            return Err(ConfigError::Log { value: log, error: error.to_string() });
        }
        Ok(Config {
            listen: self.listen.unwrap_or(default.listen),
            data: self.data.unwrap_or(default.data),
            redis: self.redis.or(default.redis),
            idle: self.idle.map_or(default.idle, |seconds| Duration::from_secs(seconds.into())),
            log,
            log_format: self.log_format.unwrap_or(default.log_format),
        })
    }
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::FileContent { path: path.to_owned(), error: Box::new(error) })
}

/// Refuses variables that look like settings and are none: a typing mistake would go unnoticed.
fn check_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<(), ConfigError> {
    let command = Cli::command();
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()).collect();
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

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let cli = Cli::try_parse_from(["quire"].iter().chain(arguments))?;
        Ok(match cli.command {
            Some(Command::Serve(serve)) => serve.settings,
            None => cli.serve.settings,
        })
    }

    #[test]
    fn no_command_is_serve() {
        for arguments in [&["--listen", "[::1]:9"][..], &["serve", "--listen", "[::1]:9"]] {
            assert_eq!(parse(arguments).unwrap().listen, Some("[::1]:9".parse().unwrap()));
        }
        assert_eq!(parse(&[]).unwrap().resolve().unwrap(), Config::default());
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        let error = parse(&["--listen", "nowhere"]).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("--listen <ADDRESS:PORT>"), "{error}");
        let error = parse(&["--log-format", "xml"]).unwrap_err().to_string();
        assert!(error.contains("xml") && error.contains("text, json"), "{error}");
        let error = parse(&["--log", "a=b=c"]).unwrap().resolve().unwrap_err().to_string();
        assert!(error.contains("a=b=c"), "{error}");
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let file =
            || toml::from_str::<Settings>("listen = '127.0.0.1:1'\nidle = 7\nlog-format = 'json'").unwrap();
        let config = parse(&["--listen", "127.0.0.1:2"]).unwrap().or(file()).resolve().unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.idle, Duration::from_secs(7));
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.data, Config::default().data);
    }

    #[test]
    fn unknown_settings_stop_the_start() {
        let error = toml::from_str::<Settings>("lisen = '127.0.0.1:1'").unwrap_err().to_string();
        assert!(error.contains("lisen") && error.contains("listen"), "{error}");
        let variable = |name: &str| check_variables([(name.into(), "1".into())].into_iter());
        let error = variable("QUIRE_LISEN").unwrap_err().to_string();
        assert!(error.contains("QUIRE_LISEN=\"1\"") && error.contains("QUIRE_LISTEN"), "{error}");
        assert!(variable("QUIRE_LISTEN").is_ok());
        assert!(variable("QUIRE_PORT_8080_TCP").is_ok());
        assert!(variable("HOME").is_ok());
    }
}
