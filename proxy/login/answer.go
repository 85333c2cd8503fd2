package login

import (
	"bytes"
	"errors"
)

// MayLogIn reports whether credentials are taken on the connection as it is.
func (c *Conn) MayLogIn() bool { return c.Secure() || !c.o.Front.RequireTLS }

// End sends the client its last words, and returns why the connection ends; where they can't be
// sent, that.
func (c *Conn) End(why error) error {
	if err := c.Flush(); err != nil {
		return err
	}
	return why
}

// Answers are what a protocol says of a login.
type Answers struct {
	Success string // begins a platform's answer that is passed on
	Welcome string // in the place of another

	// Refused returns the answer to a login that failed, and whether the connection ends with it.
	Refused func(*Refusal) (reply string, end bool)
	// Mistake says it where it doesn't; an error ends the connection all the same.
	Mistake func(reply string) error
}

// Answer tries to log in as [Conn.Login] does, and tells the client what came of it. It returns
// the session, or why the connection ends; neither, if the client may go on.
func (c *Conn) Answer(a *Attempt, say Answers) (*Session, error) {
	session, welcome, err := c.Login(a)
	var refused *Refusal
	switch {
	case err == nil:
		if bytes.HasPrefix(welcome.Final, []byte(say.Success)) {
			c.Print(string(welcome.Final), "\r\n")
		} else {
			c.Print(say.Welcome)
		}
		return session, c.Flush()
	case !errors.As(err, &refused):
		return nil, err
	}
	reply, end := say.Refused(refused)
	if end {
		c.Print(reply)
		return nil, c.End(refused)
	}
	return nil, say.Mistake(reply)
}
