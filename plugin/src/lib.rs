//! The dynamic library that registers Vocable's nodes with a host. Everything is in `vocable-nodes`; this crate exports it.

vocable_host_sdk::export_plugin!(vocable_nodes::Vocable);
