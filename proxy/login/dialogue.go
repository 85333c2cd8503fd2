package login

import (
	"errors"
	"time"
)

// Dialogue is one protocol, up to authentication, on both sides. It holds no state of a
// connection; its methods are called by many goroutines at once.
type Dialogue interface {
	// Protocol is the protocol's name in configuration, logs and metrics: imap, submission,
	// pop3 or sieve.
	Protocol() string

	// Serve speaks with the client, from the greeting on, until it has logged in: then it
	// returns the session, after it told the client so and flushed; what the client has sent
	// beyond stays in c. It returns an error when the connection is to end, after its last
	// words: ErrQuit if the client wished it, else what went wrong. The errors of c's methods
	// are returned as they are, and c speaks the last words for them (Farewell).
	Serve(c *Conn) (*Session, error)

	// Authenticate logs in at the platform, from its greeting on; TCP, PROXY header and
	// implicit TLS are done. It sends a's credentials only after l.MaySend says so, and calls
	// a.Last directly before it does. It returns what the platform answered, for Serve, and
	// leaves in l what the platform sent beyond. A refusal by the platform of these credentials
	// is a *Rejection; every other error means that the platform can't be used for now.
	Authenticate(l *Leg, a *Attempt) (Welcome, error)

	// Farewell returns what a client is told that is sent away for this cause, at a line's
	// start; logged says whether it had logged in. nil: nothing.
	Farewell(cause Cause, logged bool) []byte

	// Tracker returns what follows a platform's bytes to one client, so that Farewell is
	// said at a line's start only. nil: there is never certainty, and no last word.
	Tracker() Tracker

	// Ending says how a session of this protocol is cut when its agency closes.
	Ending() Ending
}

// Tracker follows the bytes that go to a client after its login. It belongs to one goroutine
// at a time.
type Tracker interface {
	// Observe takes the next bytes of the stream.
	Observe(p []byte)
	// AtStart reports whether the next byte would certainly begin a new line of the protocol:
	// not within a line or a literal, and not in a stream that can't be followed (compressed).
	AtStart() bool
}

// Ending says how sessions end when their agency closes. The zero value cuts the
// platform's side at once (docs/architecture/switch.md, node rule 6).
type Ending struct {
	// Silence is how long both directions must have been silent before the cut, so that no
	// message whose answer is on its way is torn. 0: it isn't waited for.
	Silence time.Duration
	// Within is when the cut comes at the latest.
	Within time.Duration
}

// Attempt is one try to log in.
type Attempt struct {
	Name      string    // as the client gave it; of OAuth the user's name in the message
	Authorize string    // another name to act as (RFC 4616 authzid); empty: Name
	Mechanism Mechanism // how the client proved itself
	Secret    []byte    // password or token; wiped after the attempt

	// For Authenticate:
	Login   string  // what this platform is told: the table's name for it, or for a user, the endpoint's separator, and the table's name for the mailbox
	Master  *Master // not nil: log in by the master user for Login, and not by Secret
	Helo    string  // what the client called itself (submission); empty: nothing
	Offered *Offers // what the client was announced in the name of all platforms (submission); nil: nothing
	ID      []byte  // the client's parameters of ID (IMAP, RFC 2971), as they came; nil: none

	last func() error
}

// Last asks, directly before credentials are sent, whether the decision still holds. After
// an error nothing may be sent; Authenticate returns it as it is.
func (a *Attempt) Last() error {
	if a.last == nil {
		return errors.New("nobody has decided on this login")
	}
	return a.last()
}

// SetLast sets what Last asks. It is for the core, for whoever logs in as a client does, and
// for tests of dialogues (logintest).
func (a *Attempt) SetLast(last func() error) { a.last = last }

// Mechanism is how a client proves who it is.
type Mechanism uint8

const (
	MechanismUnknown     Mechanism = iota
	MechanismPassword              // PLAIN, LOGIN, USER and PASS
	MechanismOAuthBearer           // RFC 7628
	MechanismXOAuth2               // Google's and Microsoft's form of the same
)

// Master is a platform's user that may log in for all others.
type Master struct {
	User      string
	Password  string // never logged
	Separator string // Dovecot's auth_master_user_separator: LOGIN*MASTER; empty: SASL PLAIN with authzid
}

// same reports whether both are none, or equal.
func (m *Master) same(o *Master) bool { return m == o || m != nil && o != nil && *m == *o }

// Welcome is what a platform answered to a login that it took. Its fields are bytes of the
// platform's own, bounded; what they mean is between Serve and Authenticate of one
// dialogue.
type Welcome struct {
	Before []byte // whole lines that came before the final answer (IMAP: untagged ones)
	Final  []byte // the final answer without tag and line end, such as "OK [CAPABILITY ...] Logged in"
}

// Cause is why a client is sent away, or its login refused.
type Cause uint8

const (
	CauseUnknown    Cause = iota // not foreseen: temporary
	CauseWrong                   // the platform refused the credentials
	CauseName                    // the name can't be a login here: malformed, of a master user, two identities
	CauseNoSuchName              // the table doesn't know the name: temporary, since nothing is proven
	CauseClosed                  // the agency is closed, and the wait is over
	CauseLocked                  // the agency is locked: it isn't waited for
	CauseTable                   // this node may not decide now
	CausePlatform                // the platform can't be reached or can't be used
	CauseLimit                   // too many sessions, attempts or waiting logins
	CausePrivacy                 // TLS first
	CauseIdle                    // silent for too long
	CauseErrors                  // too many bad commands
	CauseDrain                   // this node stops, or is drained
	CauseMoved                   // the mailbox's agency closes: come back
	CauseOperator                // a person closed the session
)

// Refusal is the error of a login that didn't succeed. Its text is for the log; what the
// client learns follows from Cause, by the dialogue's one function that makes replies.
type Refusal struct {
	Cause Cause
	Err   error // nil, or what happened

	// Answer is the platform's own, for CauseWrong: without tag and line end.
	Answer []byte
}

// Rejection is the error of Authenticate when the platform refused the credentials.
type Rejection struct {
	Answer []byte // the platform's, without tag and line end
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.Err == nil {
		return "login refused: " + r.Cause.String()
	}
	return "login refused: " + r.Cause.String() + ": " + r.Err.Error()
}

// Unwrap returns Err.
func (r *Refusal) Unwrap() error { return r.Err }

// Error implements error. The platform's text is left out: it may name what it got.
func (r *Rejection) Error() string { return "the platform refused the credentials" }

// String returns the word used in logs and metrics.
func (c Cause) String() string {
	words := [...]string{"unknown", "wrong", "name", "no-such-name", "closed", "locked", "table", "platform", "limit",
		"privacy", "idle", "errors", "drain", "moved", "operator"}
	if int(c) < len(words) {
		return words[c]
	}
	return words[0]
}
