package pop3

import "mailcutover/proxy/login"

// Dialogue implements [login.Dialogue] for POP3. The zero value is ready.
type Dialogue struct{}

// Protocol implements [login.Dialogue].
func (Dialogue) Protocol() string { return "pop3" }

// Ending implements [login.Dialogue]: at once.
func (Dialogue) Ending() login.Ending { return login.Ending{} }

// Tracker implements [login.Dialogue]: there is none, since only the client's command says
// whether an answer has one line or many.
func (Dialogue) Tracker() login.Tracker { return nil }
