//! A doubly linked sequence over indexes: blocks are moved and inserted behind others in constant time, whatever the length.

/// A place in a chain. Nodes are never re-used, so a link to a removed node stays what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node(usize);

#[derive(Debug)]
struct Links<T> {
    item: T,
    before: Option<Node>,
    after: Option<Node>,
    is_removed: bool,
}

/// The sequence.
#[derive(Debug)]
pub(crate) struct Chain<T> {
    nodes: Vec<Links<T>>,
    first: Option<Node>,
}

impl<T> Chain<T> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), first: None }
    }

    pub(crate) fn get(&self, node: Node) -> Option<&T> {
        self.nodes.get(node.0).map(|links| &links.item)
    }

    pub(crate) fn get_mut(&mut self, node: Node) -> Option<&mut T> {
        self.nodes.get_mut(node.0).map(|links| &mut links.item)
    }

    pub(crate) fn is_removed(&self, node: Node) -> bool {
        self.nodes.get(node.0).is_none_or(|links| links.is_removed)
    }

    pub(crate) fn before(&self, node: Node) -> Option<Node> {
        self.nodes.get(node.0).and_then(|links| links.before)
    }

    /// Puts a new item right behind `anchor` (`None` = to the front).
    pub(crate) fn insert(&mut self, anchor: Option<Node>, item: T) -> Node {
        let node = Node(self.nodes.len());
        self.nodes.push(Links { item, before: None, after: None, is_removed: false });
        self.link(anchor, node);
        node
    }

    /// Moves a node right behind `anchor` (`None` = to the front). Behind itself is where it is.
    pub(crate) fn shift(&mut self, node: Node, anchor: Option<Node>) {
        if anchor != Some(node) {
            self.unlink(node);
            self.link(anchor, node);
        }
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, node: Node) {
        self.unlink(node);
        if let Some(links) = self.nodes.get_mut(node.0) {
            links.is_removed = true;
        }
    }

    /// The items in order.
    pub(crate) fn into_items(self) -> Vec<T> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut next = self.first;
        while let Some(node) = next {
            order.push(node);
            next = self.after(node);
        }
        let mut items: Vec<Option<T>> = self.nodes.into_iter().map(|links| Some(links.item)).collect();
        order.into_iter().filter_map(|node| items.get_mut(node.0).and_then(Option::take)).collect()
    }

    fn after(&self, node: Node) -> Option<Node> {
        self.nodes.get(node.0).and_then(|links| links.after)
    }

    fn set_after(&mut self, node: Option<Node>, after: Option<Node>) {
        match node {
            None => self.first = after,
            Some(node) => {
                if let Some(links) = self.nodes.get_mut(node.0) {
                    links.after = after;
                }
            }
        }
    }

    fn set_before(&mut self, node: Option<Node>, before: Option<Node>) {
        if let Some(links) = node.and_then(|node| self.nodes.get_mut(node.0)) {
            links.before = before;
        }
    }

    fn link(&mut self, anchor: Option<Node>, node: Node) {
        let after = match anchor {
            None => self.first,
            Some(anchor) => self.after(anchor),
        };
        self.set_after(anchor, Some(node));
        self.set_before(Some(node), anchor);
        self.set_after(Some(node), after);
        self.set_before(after, Some(node));
    }

    fn unlink(&mut self, node: Node) {
        let (before, after) = (self.before(node), self.after(node));
        self.set_after(before, after);
        self.set_before(after, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_inserted_moved_and_removed() {
        let mut chain = Chain::new();
        let one = chain.insert(None, 1);
        let two = chain.insert(Some(one), 2);
        let zero = chain.insert(None, 0);
        let three = chain.insert(Some(two), 3);
        chain.shift(zero, Some(two));
        chain.shift(three, None);
        chain.shift(one, Some(one));
        assert_eq!(chain.before(zero), Some(two));
        assert_eq!(chain.before(three), None);
        chain.remove(one);
        assert!(chain.is_removed(one) && !chain.is_removed(two));
        assert_eq!(chain.into_items(), [3, 2, 0]);
    }
}
