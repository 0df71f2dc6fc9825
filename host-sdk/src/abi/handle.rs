//! Objects that travel through a graph without being looked into: models, encoders, anything of a plugin's own.

use std::any::{Any, type_name};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use abi_stable::StableAbi;
use abi_stable::sabi_trait::TD_CanDowncast;
use abi_stable::std_types::{RArc, RBox, RString};

use super::NodeError;
use super::border::{Opaque, Opaque_TO};

/// Its address tells one copy of this crate from another: each library and the host program have their own.
static OWNER: AtomicU8 = AtomicU8::new(0);

/// A shared object behind a type tag.
///
/// * **What:** a counted reference; a clone is cheap and names the same object.
/// * **Who may open it:** only the library that made it, see [`open`](Self::open). Everyone else may keep it, clone it
///   and pass it on.
/// * **Lifetime:** the object is freed, by the library that made it, when the last clone is dropped, on whichever
///   thread that happens. `[any thread]`
#[derive(Clone, StableAbi)]
#[repr(C)]
pub struct Handle {
    type_tag: RString,
    owner: usize,
    object: RArc<Opaque_TO<'static, RBox<()>>>,
}

struct Shared(Option<Arc<dyn Any + Send + Sync>>);

impl Opaque for Shared {
    fn describe(&self) -> RString {
        RString::from("object")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last clone may be dropped by another library, into which no panic may unwind.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
    }
}

impl Handle {
    /// Wraps `object` under `type_tag`, the type that sockets of the graph are given, such as `MODEL`.
    pub fn new<T: Any + Send + Sync>(type_tag: impl Into<String>, object: Arc<T>) -> Self {
        let shared = Shared(Some(object));
        Self {
            type_tag: RString::from(type_tag.into()),
            owner: owner_marker(),
            object: RArc::new(Opaque_TO::from_value(shared, TD_CanDowncast)),
        }
    }

    /// The type that sockets of the graph are given, such as `MODEL`.
    pub fn type_tag(&self) -> &str {
        self.type_tag.as_str()
    }

    /// Whether the asking library made this handle. `[any thread]`
    pub fn is_ours(&self) -> bool {
        self.owner == owner_marker()
    }

    /// The object itself, for the library that made it.
    ///
    /// Anyone else gets an error of kind [`Incompatible`](super::ErrorKind::Incompatible), as does the maker that asks for
    /// another type. The result keeps the object alive. `[any thread]`
    pub fn open<T: Any + Send + Sync>(&self) -> Result<Arc<T>, NodeError> {
        if !self.is_ours() {
            return Err(NodeError::incompatible(format!(
                "this {} was made by another plugin and cannot be opened here",
                self.type_tag()
            ))
            .help("Link the output of a loader that belongs to the same plugin as this node."));
        }
        let wanted = || {
            NodeError::incompatible(format!(
                "this {} does not hold what the node needs ({})",
                self.type_tag(),
                type_name::<T>()
            ))
        };
        let shared = self.object.obj.downcast_as::<Shared>().map_err(|_| wanted())?;
        let object = shared.0.clone().ok_or_else(wanted)?;
        object.downcast::<T>().map_err(|_| wanted())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.type_tag)
    }
}

fn owner_marker() -> usize {
    (&raw const OWNER).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted(Arc<()>);

    #[test]
    fn the_maker_opens_what_it_made_and_nothing_else() {
        let handle = Handle::new("MODEL", Arc::new(41_u32));
        assert_eq!(*handle.clone().open::<u32>().unwrap(), 41);
        assert!(handle.open::<String>().unwrap_err().message.contains("MODEL"));
    }

    #[test]
    fn a_foreign_owner_is_refused() {
        let mut handle = Handle::new("MODEL", Arc::new(41_u32));
        handle.owner ^= 1;
        assert!(handle.open::<u32>().unwrap_err().message.contains("another plugin"));
    }

    #[test]
    fn the_object_dies_with_the_last_clone() {
        let alive = Arc::new(());
        let handle = Handle::new("X", Arc::new(Counted(alive.clone())));
        let second = handle.clone();
        drop(handle);
        assert_eq!(Arc::strong_count(&alive), 2);
        assert_eq!(Arc::strong_count(&second.open::<Counted>().unwrap().0), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
