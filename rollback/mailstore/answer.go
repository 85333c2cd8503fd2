package mailstore

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// kindsByCode are response codes whose meaning is fixed: RFC 5530 section 3, RFC 9051 section
// 7.1, RFC 4469 (TOOBIG), RFC 9208 (OVERQUOTA); THROTTLED is Exchange Online's.
var kindsByCode = map[imap.ResponseCode]error{
	"UNAVAILABLE":          ErrThrottled,
	"THROTTLED":            ErrThrottled,
	"INUSE":                ErrThrottled,
	"LIMIT":                ErrThrottled,
	"SERVERBUG":            ErrThrottled,
	"OVERQUOTA":            ErrNoSpace,
	"TOOBIG":               ErrTooLarge,
	"TRYCREATE":            ErrNoFolder,
	"NONEXISTENT":          ErrNoFolder,
	"AUTHORIZATIONFAILED":  ErrNoMailbox,
	"AUTHENTICATIONFAILED": ErrAuth,
	"EXPIRED":              ErrAuth,
	"PRIVACYREQUIRED":      ErrAuth,
	"CONTACTADMIN":         ErrNoMailbox,
}

// kindsByText are what platforms write where they have no code, in lower case. Exchange 2016
// and 2019 answer so: "The message exceeds the maximum supported size", "Server Unavailable.
// 15", "User is authenticated but not connected", which is what a mailbox gives that doesn't
// exist or that the account has no right to.
var kindsByText = []struct {
	text string
	kind error
}{
	{"authenticated but not connected", ErrNoMailbox},
	{"maximum message size", ErrTooLarge},
	{"maximum supported size", ErrTooLarge},
	{"message size exceeds", ErrTooLarge},
	{"too large", ErrTooLarge},
	{"too big", ErrTooLarge},
	{"quota", ErrNoSpace},
	{"mailbox is full", ErrNoSpace},
	{"throttl", ErrThrottled},
	{"backoff", ErrThrottled},
	{"server unavailable", ErrThrottled},
	{"server busy", ErrThrottled},
	{"too many", ErrThrottled},
	{"try again", ErrThrottled},
	{"temporar", ErrThrottled},
	{"internal error", ErrThrottled},
	{"mailbox doesn't exist", ErrNoFolder},
	{"mailbox does not exist", ErrNoFolder},
	{"folder not found", ErrNoFolder},
}

// backoffTime is how Exchange says for how long: "Request is throttled. Suggested Backoff
// Time: 4321 Milliseconds".
var backoffTime = regexp.MustCompile(`(?i)backoff time: (\d{1,9}) milliseconds`)

// answered gives what a platform answered its kind. What isn't known is ErrRefused: it is
// about this command, and nothing is concluded from it.
func answered(e *imap.Error) error {
	text := strings.ToLower(e.Text)
	kind := kindsByCode[imap.ResponseCode(strings.ToUpper(string(e.Code)))]
	for i := 0; kind == nil && i < len(kindsByText); i++ {
		if strings.Contains(text, kindsByText[i].text) {
			kind = kindsByText[i].kind
		}
	}
	said := errors.New(clip(e.Error()))
	switch kind {
	case nil:
		return fmt.Errorf("%w: %w", ErrRefused, said)
	case ErrThrottled:
		t := &ThrottledError{Err: said, unavailable: e.Code == imap.ResponseCodeUnavailable || e.Code == imap.ResponseCodeServerBug}
		if m := backoffTime.FindStringSubmatch(e.Text); m != nil {
			ms, _ := strconv.Atoi(m[1]) // nine digits at most
			t.After = time.Duration(ms) * time.Millisecond
		}
		return t
	default:
		return fmt.Errorf("%w: %w", kind, said)
	}
}

// clip shortens what a platform wrote, and takes out what doesn't belong into a line.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}
