//! The visible text of a document in pieces of which each names the edits that it is made of: by that it can be told
//! who wrote it, and what is another version's.

use yrs::{
    Any, BranchID, ID, Out, ReadTxn, Snapshot, Text, Transact, TransactionMut, XmlFragment, XmlOut,
    types::text::{Diff, YChange},
};

use super::{Document, UpdateError, contained, export::RootKind};
use crate::update::Id;

/// Text that one client has inserted in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The root type that it is in.
    pub root: String,
    /// The edit of its first unit; those of the others follow.
    pub id: Id,
    /// The text. After each element of a fragment that holds text stands a line break, which is the element's.
    pub text: String,
}

/// The text of a document, in order.
pub fn pieces(document: &Document) -> Result<Vec<Piece>, UpdateError> {
    let roots = document.roots().filter_map(|(name, evidence)| {
        let kind = RootKind::learned(evidence)?;
        matches!(kind, RootKind::Text | RootKind::Xml).then(|| (name.to_owned(), kind))
    });
    let mut roots: Vec<(String, RootKind)> = roots.collect();
    roots.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    contained(|| {
        let mut transaction = document.doc.transact_mut();
        let now = transaction.snapshot();
        let mut reader = Reader { now, pieces: Vec::new() };
        for (root, kind) in roots {
            match kind {
                RootKind::Text => {
                    if let Some(text) = transaction.get_text(&*root) {
                        reader.text(&mut transaction, &root, &text);
                    }
                }
                _ => {
                    if let Some(fragment) = transaction.get_xml_fragment(&*root) {
                        reader.children(&mut transaction, &root, &fragment);
                    }
                }
            }
        }
        reader.pieces
    })
}

struct Reader {
    now: Snapshot,
    pieces: Vec<Piece>,
}

impl Reader {
    fn text(&mut self, transaction: &mut TransactionMut<'_>, root: &str, text: &impl Text) {
        // Compared with nothing, everything is new, and says of which edit it is.
        let nothing = Snapshot::default();
        let inserted = text.diff_range(transaction, Some(&self.now), Some(&nothing), YChange::identity);
        for Diff { insert, ychange, .. } in inserted {
            // What is embedded is no text, and does not say of which edit it is.
            if let (Out::Any(Any::String(text)), Some(change)) = (insert, ychange) {
                self.pieces.push(Piece { root: root.to_owned(), id: id(change.id), text: text.to_string() });
            }
        }
    }

    fn children(&mut self, transaction: &mut TransactionMut<'_>, root: &str, parent: &impl XmlFragment) {
        let children: Vec<XmlOut> = parent.children(transaction).collect();
        for child in children {
            match child {
                XmlOut::Text(text) => self.text(transaction, root, &text),
                XmlOut::Fragment(fragment) => self.children(transaction, root, &fragment),
                XmlOut::Element(element) => {
                    self.children(transaction, root, &element);
                    let holds_elements =
                        element.children(transaction).all(|child| matches!(child, XmlOut::Element(_)));
                    let is_leaf = element.children(transaction).next().is_none();
                    let branch: &yrs::branch::Branch = element.as_ref();
                    if (!holds_elements || is_leaf)
                        && let BranchID::Nested(nested) = branch.id()
                    {
                        self.pieces.push(Piece {
                            root: root.to_owned(),
                            id: id(nested),
                            text: "\n".to_owned(),
                        });
                    }
                }
            }
        }
    }
}

fn id(id: ID) -> Id {
    Id { client: id.client.get(), clock: id.clock }
}
