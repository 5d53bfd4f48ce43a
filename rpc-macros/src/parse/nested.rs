//! What no type that travels may have inside: borrows, lifetimes, `Self`, `impl Trait`, streams.

use syn::visit_mut::{self, VisitMut};
use syn::{Lifetime, PathArguments, Type};

use crate::fault::Faults;
use crate::shape;

pub(super) const LIFETIME: &str = "an argument has no explicit lifetime: what is borrowed lives as long as the call";

const ITEM: &str = "a stream outlives its call and cannot borrow from `&self`: let its items be owned, keep what it reads in an \
                    `Arc` (`inner: Arc<Inner>`), and move a clone of that into the stream";

/// Checks the type of an argument, without the `&` in front of it.
pub(super) fn check_argument(ty: &Type, faults: &mut Faults) {
    let reference = "a reference inside another type cannot travel: use an owned type there";
    check(ty, faults, reference, LIFETIME);
}

/// Checks what a stream that comes back is made of. It outlives the call, and with it every borrow of the service.
pub(super) fn check_items(arguments: &PathArguments, faults: &mut Faults) {
    Nested { faults, reference: ITEM, lifetime: ITEM }.visit_path_arguments_mut(&mut arguments.clone());
}

/// Checks the type of a value or error that comes back.
pub(super) fn check_answer(ty: &Type, faults: &mut Faults) {
    check(ty, faults, "an answer cannot borrow: return an owned type", "an answer cannot borrow: it has no lifetime");
}

fn check(ty: &Type, faults: &mut Faults, reference: &'static str, lifetime: &'static str) {
    // syn's reading visitor is a feature more; a copy of one type is not.
    Nested { faults, reference, lifetime }.visit_type_mut(&mut ty.clone());
}

struct Nested<'f> {
    faults: &'f mut Faults,
    reference: &'static str,
    lifetime: &'static str,
}

impl VisitMut for Nested<'_> {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        match ty {
            Type::Reference(_) => self.faults.at(&*ty, self.reference),
            Type::ImplTrait(bounds) if shape::mentions(bounds, "Stream") => {
                self.faults.at(&*ty, "a stream travels as `rpc::Streaming<T>`, which any stream can be made into");
            }
            Type::ImplTrait(_) => self.faults.at(&*ty, "`impl Trait` cannot travel: the other side has to know the type"),
            Type::Path(path) if path.qself.is_none() && path.path.is_ident("Self") => {
                self.faults.at(&*path, "`Self` cannot travel: it is another type on the other side");
            }
            _ if shape::ends_in(ty, "Streaming") => {
                self.faults.at(&*ty, "a stream stands alone: as an argument, or as the value of the answer");
            }
            _ => visit_mut::visit_type_mut(self, ty),
        }
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        self.faults.at(&*lifetime, self.lifetime);
    }
}
