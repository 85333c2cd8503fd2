package sieve

import "mailcutover/proxy/login"

// Dialogue implements [login.Dialogue] for ManageSieve. The zero value is ready.
type Dialogue struct{}

// Protocol implements [login.Dialogue].
func (Dialogue) Protocol() string { return "sieve" }

// Ending implements [login.Dialogue]: at once. A script whose upload has no answer is the
// client's to send again.
func (Dialogue) Ending() login.Ending { return login.Ending{} }

// Tracker implements [login.Dialogue].
func (Dialogue) Tracker() login.Tracker { return &tracker{} }
