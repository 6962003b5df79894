//! Curves, masks and tables that a person looks at.
