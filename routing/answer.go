package routing

import (
	"crypto/sha256"
	"fmt"
)

// Answer returns a word for everything of the record that can't change within an epoch:
// two records of one agency and epoch with different words are of two histories. It begins
// with "open" or "closed" and has no space.
func (a *Agency) Answer() string {
	word := "closed"
	if a.Open() {
		word = "open"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %v %v %q %q", a.Nonce, a.Phase, a.Published, a.Locked, a.Source, a.Target))
	return fmt.Sprintf("%s:%x", word, sum[:8])
}
