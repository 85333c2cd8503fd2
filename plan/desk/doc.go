// Package desk is a node's part in the plan: it starts the agencies of waves when their time
// has come, watches what stops the plan, and says how all of that stands.
//
// Every node runs one, and any of them may act; none leads. An agency is claimed by a change
// of the wave's document, which the table takes from one node only, and with it a document that
// every such decision changes, so that what may happen at once is counted right over all waves.
// The operation's id comes from the wave, its approval, the agency and the attempt. It begins in
// the same change that notes in the wave's document that it has begun ([Documents]), and only if
// the claim is still that node's and nobody paused the wave, stopped the plan or touched the
// agency's record meanwhile. So a node may die or sleep between any two lines: what it had
// claimed and not begun another one gives back, once its lease is over, and the table takes no
// late begin of it. What has begun, the runner of operations carries on on whichever node.
//
// It refuses by not acting, and says why: whatever isn't known, a checklist that doesn't hold, a
// window that is too short. It never begins a rollback. Where the table can't be reached it does
// nothing; the stop is then not written either, but nothing starts without the table.
//
// The daemon calls Run once, from a goroutine that it waits for; it ends with its context, and
// leaves operations that it has begun to the API's runner. Everything else may be called from any
// goroutine.
package desk
