// Package approval is the four-eyes rule (docs/architecture/promises.md, P9): somebody
// proposes, others approve, and then it may be done once.
//
// A [Proposal] is bound to the digest of what is to be done: its kind, whom it concerns
// and in which epoch, its parameters, the plan and the list. Whoever approves names the
// digest that he has seen; whoever uses it computes the content as it is then, and where
// that is another, the proposal is void. It is void too when its time is over. Proposer
// and approvers are different persons, not only different tokens, and every approver
// counts once.
//
// It refuses to approve twice, to approve one's own, and to use what lacks an approval,
// was used, withdrawn or is void. It doesn't know who may do what: rights are the caller's
// business, as is who the person behind a token is.
//
// The package is pure. A proposal's methods return the next one and change nothing; it is
// stored as a document of the state table, which takes it only if nobody changed it
// meanwhile. So any node can be asked, approvals can't be lost between two nodes, and of
// two uses at the same time one fails. If the table is away, nothing is proposed, approved
// or used.
package approval
