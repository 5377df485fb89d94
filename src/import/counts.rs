//! How many documents an import has brought, in a line for people.

use std::fmt;

use super::Imported;

/// Counts documents by what has become of them.
#[derive(Debug, Default)]
pub struct Counts {
    imported: usize,
    unchanged: usize,
    refused: usize,
}

impl Counts {
    /// Counts one more.
    pub fn count(&mut self, imported: &Imported) {
        let counted = match (imported.refused.is_empty(), imported.is_new) {
            (false, _) => &mut self.refused,
            (true, true) => &mut self.imported,
            (true, false) => &mut self.unchanged,
        };
        *counted += 1;
    }

    /// Whether there was none at all.
    pub fn is_empty(&self) -> bool {
        self.imported + self.unchanged + self.refused == 0
    }

    /// How many were refused, as a whole or in part.
    pub fn refused(&self) -> usize {
        self.refused
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.imported == 1 { "document" } else { "documents" };
        write!(f, "imported {} {noun}", with_commas(self.imported))?;
        if self.unchanged > 0 {
            write!(f, ", {} had nothing new", with_commas(self.unchanged))?;
        }
        if self.refused > 0 {
            write!(f, ", {} refused as a whole or in part", with_commas(self.refused))?;
        }
        Ok(())
    }
}

/// A number as people write it: 1,234.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_spoken_of() {
        let counts = Counts { imported: 1_234_567, unchanged: 0, refused: 3 };
        assert_eq!(counts.to_string(), "imported 1,234,567 documents, 3 refused as a whole or in part");
        let counts = Counts { imported: 1, unchanged: 1_000, refused: 0 };
        assert_eq!(counts.to_string(), "imported 1 document, 1,000 had nothing new");
    }
}
