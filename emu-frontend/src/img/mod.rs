//! `emu img`: what `qemu-img` does, with its arguments, its words and its exit codes.
//!
//! Deliberately absent: `amend`, `bench`, `bitmap`, `dd`, `measure`, `--image-opts`, `--object` other than secrets.

mod commands;
mod convert;
mod create;
mod info;
mod map;
mod output;
mod snapshot;

use crate::cli::objects;
use crate::image::Format;
use crate::image::layer::Layer;
use crate::image::open::{Backing, Cache, OpenOptions, open};
use crate::report;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;

#[derive(Debug, Parser)]
#[command(name = "emu img", about = "Disk images: make, show, check and convert them", disable_version_flag = true)]
struct Img {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an image
    Create(create::Arguments),
    /// Show what an image is
    Info(info::Arguments),
    /// Check an image's structures, and repair them
    Check(info::CheckArguments),
    /// Copy images into a new one, in another format, perhaps compressed
    Convert(convert::Arguments),
    /// Change an image's size
    Resize(commands::ResizeArguments),
    /// Give an image another backing image
    Rebase(commands::RebaseArguments),
    /// Write what an image has on top of its backing image into that
    Commit(commands::CommitArguments),
    /// Make, apply, delete or list internal snapshots
    Snapshot(snapshot::Arguments),
    /// Tell whether two images hold the same
    Compare(commands::CompareArguments),
    /// Show where an image has its data
    Map(map::Arguments),
}

/// What all commands take that open images.
#[derive(Debug, Args)]
struct Opening {
    /// Though another process writes to it
    #[arg(short = 'U', long = "force-share")]
    force_share: bool,
    /// Which files an image may name as its backing image: those in its `folder` and below, or any
    #[arg(long = "backing-files", value_name = "WHICH", default_value = "folder", value_parser = ["folder", "any"])]
    backing_files: String,
    /// A key: secret,id=ID,data=TEXT or file=FILE
    #[arg(long, value_name = "OBJECT")]
    object: Vec<String>,
}

/// How an image is opened.
#[derive(Clone, Debug, Default)]
struct How {
    format: Option<Format>,
    read_only: bool,
    cache: Cache,
    no_backing: bool,
    for_check: bool,
}

impl Opening {
    fn options(&self, how: &How) -> Result<OpenOptions, Failure> {
        let secret = match self.object.last() {
            None => None,
            Some(text) => Some(objects::parse_secret(text).map_err(|e| Failure::new(e.line()))?.data),
        };
        Ok(OpenOptions {
            format: how.format,
            read_only: how.read_only,
            cache: how.cache,
            backing: Backing { anywhere: self.backing_files == "any", none: how.no_backing, ..Backing::default() },
            unlocked: self.force_share,
            for_check: how.for_check,
            for_info: how.no_backing,
            secret,
            ..OpenOptions::default()
        })
    }

    /// Opens the image called `name`.
    fn open(&self, name: &str, how: &How) -> Result<Box<dyn Layer>, Failure> {
        let mut warnings = Vec::new();
        let image = open(name, &self.options(how)?, &mut warnings);
        warnings.iter().for_each(|warning| report::complain(&format!("warning: {warning}")));
        image.map_err(|problem| Failure::new(could_not_open(name, &problem)))
    }
}

/// QEMU's words.
fn could_not_open(name: &str, problem: &str) -> String {
    let problem = problem.split(" (os error").next().unwrap_or_default();
    format!("Could not open '{name}': {problem}")
}

/// Why a command has failed, and its exit code.
struct Failure {
    message: String,
    status: i32,
}

impl Failure {
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), status: 1 }
    }

    fn with_status(self, status: i32) -> Failure {
        Failure { status, ..self }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        let text = error.to_string();
        Failure::new(text.split(" (os error").next().unwrap_or_default())
    }
}

/// An exit code, or why there is nothing else to say.
type Outcome = Result<i32, Failure>;

/// The format called `name`.
fn format(name: Option<&String>) -> Result<Option<Format>, Failure> {
    let Some(name) = name else { return Ok(None) };
    Format::named(name).map(Some).ok_or_else(|| Failure::new(format!("Unknown driver '{name}'")))
}

/// A cache mode by its name.
fn cache(name: Option<&String>, default: &str) -> Result<Cache, Failure> {
    let name = name.map_or(default, String::as_str);
    Cache::named(name).ok_or_else(|| Failure::new(format!("Invalid cache option: {name}")))
}

/// Carries out the command that `words` (without `emu img`) name; the exit code.
pub fn run(words: &[OsString]) -> i32 {
    let words = std::iter::once(OsString::from("emu img")).chain(words.iter().cloned());
    let img = match Img::try_parse_from(words) {
        Ok(img) => img,
        Err(error) if !error.use_stderr() => {
            report::print(&error.to_string());
            return 0;
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            report::complain(&format!("img: {first}; emu img --help lists the commands"));
            return 1;
        }
    };
    let outcome = match img.command {
        Command::Create(arguments) => create::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Check(arguments) => info::check(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Resize(arguments) => commands::resize(&arguments),
        Command::Rebase(arguments) => commands::rebase(&arguments),
        Command::Commit(arguments) => commands::commit(&arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Compare(arguments) => commands::compare(&arguments),
        Command::Map(arguments) => map::run(&arguments),
    };
    outcome.unwrap_or_else(|failure| {
        let line: String = failure.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        report::complain(&format!("img: {line}"));
        failure.status
    })
}
