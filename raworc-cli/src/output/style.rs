//! Colours, where they are wanted.

/// How a word is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Stands out.
    Bold,
    /// Stands back.
    Dim,
    /// Good news.
    Green,
    /// Something to look at.
    Yellow,
    /// Bad news.
    Red,
    /// A name or a command to type.
    Cyan,
}

/// Paints words, or leaves them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

/// Whether the environment has nothing against colours.
pub(super) fn wanted() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Style {
    /// With colours or without.
    #[must_use]
    pub const fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// Whether there are colours.
    #[must_use]
    pub const fn colours(self) -> bool {
        self.colours
    }

    /// The text in that ink.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        if !self.colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Green => "32",
            Ink::Yellow => "33",
            Ink::Red => "31",
            Ink::Cyan => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_painted_only_where_colours_are_wanted() {
        assert_eq!(Style::new(true).paint(Ink::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::new(false).paint(Ink::Red, "x"), "x");
    }
}
