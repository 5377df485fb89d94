//! What the server is told: by flag, by `QUIRE_…` environment variable, or in a file, in that order of
//! precedence. Read and checked once, at the start.

mod authentication;
mod limits;
mod values;

use std::{
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use self::{
    authentication::{Authentication, Secret},
    limits::Limits,
};

/// The variable that holds the server's signing secret: no flag does, since everybody on a machine can see them.
const SECRET_VARIABLE: &str = "QUIRE_SECRET";

/// How the server runs; [`Config::default`] is what it does when it is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, env = "QUIRE_LISTEN", value_name = "ADDRESS:PORT", default_value_t = Config::default().listen)]
    pub listen: SocketAddr,
    /// Folder for the documents; it is made where it is missing
    #[arg(long, env = "QUIRE_DATA", value_name = "FOLDER", default_value = "./data")]
    pub data: PathBuf,
    /// Keep documents on this Redis, with all nodes that use it, in place of the folder (redis://host:6379)
    #[arg(long, env = "QUIRE_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// How long a document stays in memory after its last session
    #[arg(long, env = "QUIRE_IDLE", value_name = "SECONDS", default_value = "30", value_parser = values::seconds)]
    pub idle: Duration,
    /// What is logged: error, warn, info, debug or trace, also per module (quire=debug,warn)
    #[arg(long, env = "QUIRE_LOG", value_name = "FILTER", default_value = "info", value_parser = values::log_filter)]
    pub log: String,
    /// How the log is written
    #[arg(long, env = "QUIRE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Who may do what.
    #[command(flatten, next_help_heading = "Who may do what")]
    pub authentication: Authentication,
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
            data: "./data".into(),
            redis: None,
            idle: Duration::from_secs(30),
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            authentication: Authentication::default(),
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
    settings: Config,
}

impl Config {
    /// The configuration of this process, from its arguments, its environment and the file that they name.
    pub fn from_process() -> Result<Self, ConfigError> {
        check_variables(std::env::vars_os())?;
        let mut config = Self::read(&std::env::args_os().collect::<Vec<_>>())?;
        config.authentication.secret = std::env::var(SECRET_VARIABLE).ok().map(Secret::new);
        config.authentication.check(config.listen)?;
        Ok(config)
    }

    /// The configuration that arguments, the program's name first, and the file that they name make.
    fn read(arguments: &[OsString]) -> Result<Self, ConfigError> {
        let serve = parse(Cli::command(), arguments)?;
        let Some(path) = serve.config else { return Ok(serve.settings) };
        // What stands in the file takes the place of the defaults, so it is read like a flag.
        let command = with_defaults_of(&path, Cli::command())?;
        Ok(parse(command, arguments)?.settings)
    }
}

fn parse(command: clap::Command, arguments: &[OsString]) -> Result<Serve, clap::Error> {
    let cli = Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
    Ok(match cli.command {
        Some(Command::Serve(serve)) => serve,
        None => cli.serve,
    })
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
    let known: Vec<_> = of_flags.chain([OsStr::new(SECRET_VARIABLE)]).collect();
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

    fn read(arguments: &[&str]) -> Result<Config, ConfigError> {
        let arguments = ["quire"].iter().chain(arguments);
        Config::read(&arguments.copied().map(OsString::from).collect::<Vec<_>>())
    }

    fn read_with(file: &str, arguments: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("quire.toml");
        std::fs::write(&path, file).unwrap();
        read(&[&["--config", path.to_str().unwrap()], arguments].concat())
    }

    #[test]
    fn no_command_is_serve() {
        for arguments in [&["--listen", "[::1]:9"][..], &["serve", "--listen", "[::1]:9"]] {
            assert_eq!(read(arguments).unwrap().listen, "[::1]:9".parse().unwrap());
        }
        assert_eq!(read(&[]).unwrap(), Config::default());
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        let error = read(&["--listen", "nowhere"]).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("--listen <ADDRESS:PORT>"), "{error}");
        let error = read(&["--log-format", "xml"]).unwrap_err().to_string();
        assert!(error.contains("xml") && error.contains("text, json"), "{error}");
        let error = read(&["--log", "a=b=c"]).unwrap_err().to_string();
        assert!(error.contains("a=b=c"), "{error}");
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
        assert!(variable("QUIRE_PORT_8080_TCP").is_ok());
        assert!(variable("HOME").is_ok());
    }
}
