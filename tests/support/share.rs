//! Borrowing connections in tests that are not about shares of them.

use std::rc::Rc;
use std::sync::Arc;

use gatepost::domain::{IdentityKey, Secret};
use gatepost::upstream::{Checkout, CheckoutError, Holder, Pool, PoolKey, Share};

/// Somebody whom only the target's own cap binds.
fn anybody() -> Share {
    let identity = IdentityKey {
        provider: "p".into(),
        tenant: None,
        subject: "anybody".to_owned(),
    };
    let role = "writer".into();
    Share {
        holder: Arc::new(Holder { identity, role }),
        most: None,
    }
}

pub(crate) async fn borrow(
    pool: &Rc<Pool>,
    key: PoolKey,
    password: &Secret<String>,
) -> Result<Checkout, CheckoutError> {
    pool.checkout(key, &anybody(), &password.clone().into()).await
}
