package imap

import (
	"bytes"
	"fmt"

	"mailcutover/proxy/login"
)

// unwilling is the error for a platform that doesn't let the client in for a reason that isn't
// the client's credentials.
type unwilling struct {
	code string // the response code, in upper case; empty: BAD, or none that says why
}

// Error implements error. The platform's text is left out: it may hold what was sent.
func (u *unwilling) Error() string {
	if u.code == "" {
		return "the platform doesn't take logins as it should"
	}
	return "the platform doesn't let the client in: [" + u.code + "]"
}

// judge says what the platform's final answer to the login means.
//
// A NO to LOGIN or AUTHENTICATE is a refusal of the credentials (RFC 9051 sections 6.2.2 and
// 6.2.3) unless its response code says otherwise. Of the codes (section 7.1) these say that the
// platform has looked at the credentials and the user isn't to get in:
//
//	AUTHENTICATIONFAILED   they are wrong
//	AUTHORIZATIONFAILED    they are right, and this user may not act as that one
//	EXPIRED                they were right once
//	NOPERM                 they are right, and this user may not log in here
//	ALERT                  says nothing of its own; the text is for a person
//
// All others leave open whether the credentials are right: UNAVAILABLE, INUSE, LIMIT,
// SERVERBUG and CONTACTADMIN are about the platform. PRIVACYREQUIRED is about our connection to
// it, not the client's. REFERRAL (RFC 2221) would lead the client past this proxy. A code that
// isn't known here proves nothing. So is BAD: it is about the command, which is ours.
//
// A refusal of a master user is our own setting's fault, whatever its code.
func (p *platform) judge(s status, text []byte) (login.Welcome, error) {
	code, _ := responseCode(text)
	switch s {
	case statusOK:
		if code == "REFERRAL" {
			return login.Welcome{}, &unwilling{code: code}
		}
		return login.Welcome{Final: join("OK", text)}, nil
	case statusNO:
		if p.a.Master == nil && refuses(code) && !bytes.HasPrefix(text, []byte(exchangeUnavailable)) {
			return login.Welcome{}, &login.Rejection{Answer: join("NO", text)}
		}
		return login.Welcome{}, &unwilling{code: code}
	case statusBAD:
		return login.Welcome{}, &unwilling{}
	}
	return login.Welcome{}, fmt.Errorf("%w: no answer to the login", errPlatform)
}

// early says what an answer means that came before the platform had all of the credentials: it
// can't be about them.
func early(s status, text []byte) error {
	if s == statusOK {
		return fmt.Errorf("%w: success before the credentials", errPlatform)
	}
	code, _ := responseCode(text)
	return &unwilling{code: code}
}

// exchangeUnavailable begins the text with which Exchange's IMAP front end (2010 to 2019) says
// that it can't reach the mailbox's server: "NO Server Unavailable. 15", without a code.
const exchangeUnavailable = "Server Unavailable"

// refuses tells whether a NO with this code is a refusal of the credentials; "": without one.
func refuses(code string) bool {
	switch code {
	case "", "ALERT", "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "NOPERM":
		return true
	}
	return false
}

// join returns status and text as the client gets them. A text is never missing (RFC 9051
// section 9, resp-text).
func join(status string, text []byte) []byte {
	if len(text) == 0 {
		text = []byte("Login answered")
	}
	return append([]byte(status+" "), text...)
}
