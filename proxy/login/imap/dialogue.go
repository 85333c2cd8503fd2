package imap

import "mailcutover/proxy/login"

// Dialogue is IMAP. It implements [login.Dialogue]; the zero value is ready.
type Dialogue struct{}

var _ login.Dialogue = Dialogue{}

// Protocol implements [login.Dialogue].
func (Dialogue) Protocol() string { return "imap" }

// Ending implements [login.Dialogue]: the platform's side is cut at once. What a client was about
// to change without a tagged answer, it does again after it has come back.
func (Dialogue) Ending() login.Ending { return login.Ending{} }

// Tracker implements [login.Dialogue].
func (Dialogue) Tracker() login.Tracker { return new(tracker) }

// name is what we are called in ID, on both sides. No version is told to strangers.
const name = "mailcutover"
