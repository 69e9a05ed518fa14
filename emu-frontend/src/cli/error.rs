//! Start-up errors: one line that names the option, its value and what would be accepted.

/// Why the emulator does not start. Printed as one line on stderr; the exit status is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// An option is unknown, lacks its value or contradicts another.
    #[error("-{option}: {problem}")]
    Option {
        /// Without its dash.
        option: String,
        /// What is wrong and what would be accepted.
        problem: String,
    },
    /// The value of an option is wrong.
    #[error("-{option} {value}: {problem}")]
    Value {
        /// Without its dash.
        option: String,
        /// As the user wrote it.
        value: String,
        /// What is wrong and what would be accepted.
        problem: String,
    },
    /// Something that belongs to no single option.
    #[error("{0}")]
    Other(String),
}

impl StartError {
    /// An error about an option as such.
    pub fn option(option: &str, problem: impl Into<String>) -> StartError {
        StartError::Option { option: option.into(), problem: problem.into() }
    }

    /// An error about the value of an option.
    pub fn value(option: &str, value: impl Into<String>, problem: impl Into<String>) -> StartError {
        StartError::Value { option: option.into(), value: value.into(), problem: problem.into() }
    }

    /// What is wrong, without the option.
    pub fn problem(&self) -> &str {
        match self {
            StartError::Option { problem, .. } | StartError::Value { problem, .. } | StartError::Other(problem) => {
                problem
            }
        }
    }

    /// The message on one line, whatever control characters the user's value contained.
    pub fn line(&self) -> String {
        let text = self.to_string();
        text.chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
            .collect()
    }
}

/// The candidate that looks most like `wrong`, if any does at all.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&wrong, &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_with_control_characters_stays_one_line() {
        let error = StartError::value("kernel", "a\nb\x1b[0m", "not found");
        assert_eq!(error.line(), "-kernel a\\nb\\u{1b}[0m: not found");
    }

    #[test]
    fn nearest_of_a_misspelling_is_found_and_of_noise_is_not() {
        assert_eq!(nearest("kernal", ["append", "kernel"]), Some("kernel"));
        assert_eq!(nearest("zzz", ["append", "kernel"]), None);
    }
}
