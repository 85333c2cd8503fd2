package submission

import (
	"time"

	"mailcutover/proxy/login"
)

// Dialogue implements [login.Dialogue] for mail submission. The zero value is ready.
type Dialogue struct{}

// Protocol implements [login.Dialogue].
func (Dialogue) Protocol() string { return "submission" }

// Ending implements [login.Dialogue]: a message whose answer is on its way is let through, if it
// comes soon (docs/architecture/switch.md, node rule 6).
func (Dialogue) Ending() login.Ending {
	return login.Ending{Silence: 200 * time.Millisecond, Within: 5 * time.Second}
}

// Tracker implements [login.Dialogue].
func (Dialogue) Tracker() login.Tracker { return &tracker{state: lineStart} }
