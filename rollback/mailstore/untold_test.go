package mailstore_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/mailstore"
)

// told is what a platform answers a listing about one message.
func told(uid int) string {
	header := fmt.Sprintf("Message-ID: <%d@example.org>\r\nDate: Mon, 2 Mar 2026 10:00:00 +0100\r\nFrom: a@example.org\r\n\r\n", uid)
	return fmt.Sprintf("* %d FETCH (UID %[1]d FLAGS () INTERNALDATE \"02-Mar-2026 10:00:00 +0100\" RFC822.SIZE 300 BODY[HEADER.FIELDS (MESSAGE-ID)] {%d}\r\n%s)\r\n", uid, len(header), header)
}

// flags is what it tells unasked, when somebody else has read a message.
func flags(uid int) string { return fmt.Sprintf("* %d FETCH (UID %[1]d FLAGS (\\Seen))\r\n", uid) }

func opened(t *testing.T, s *script) mailstore.Session {
	t.Helper()
	session, err := s.store(func(o *mailstore.Options) { o.Command = 2 * time.Minute }).Open(t.Context(), row(t, "anna@example.org"), mailstore.Source)
	if err == nil {
		t.Cleanup(func() { session.Close() })
		_, err = session.Select(t.Context(), "INBOX", false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// Flags that are told in the middle of a listing aren't taken for the message: without header and date
// it would be another one.
func TestFlagsInBetween(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string // to the listings in turn; the last one to all others
		listed  []uint32
		fails   bool
	}{
		"first":          {[]string{flags(3) + told(2) + told(3) + told(4), told(3) + told(4)}, []uint32{2, 3, 4}, false},
		"within":         {[]string{told(2) + flags(3) + told(3) + told(4), told(3) + told(4)}, []uint32{2, 3, 4}, false},
		"behind":         {[]string{told(2) + told(3) + flags(2), ""}, []uint32{2, 3}, false},
		"twice":          {[]string{flags(2) + told(2) + told(3), told(2) + flags(3) + told(3), told(3)}, []uint32{2, 3}, false},
		"new":            {[]string{told(2) + "* 3 EXISTS\r\n" + flags(3), told(3)}, []uint32{2, 3}, false},
		"gone meanwhile": {[]string{told(2) + flags(3), told(2)}, []uint32{2}, false},
		"nothing more":   {[]string{told(2) + flags(3)}, []uint32{2}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScript(t, func(command string, n int) (string, bool) {
				return c.answers[min(n, len(c.answers))-1] + "% OK done\r\n", strings.HasPrefix(command, "UID FETCH")
			})
			var listed []uint32
			err := opened(t, s).List(t.Context(), 2, 0, func(m mailstore.Message) error {
				if _, ok := m.Facts.Identity(); !ok || m.Internal.IsZero() || m.Size != 300 {
					t.Errorf("message %d: %+v", m.UID, m)
				}
				listed = append(listed, m.UID)
				return nil
			})
			if !slices.Equal(listed, c.listed) || errors.Is(err, mailstore.ErrProtocol) != c.fails || !c.fails && err != nil {
				t.Errorf("%v, %v", listed, err)
			}
		})
	}
}

// So for messages that are read.
func TestFlagsInBetweenBodies(t *testing.T) {
	s := startScript(t, func(command string, n int) (string, bool) {
		if n == 1 {
			return flags(2) + "* 1 FETCH (UID 1 BODY[] {3}\r\none)\r\n* 2 FETCH (UID 2 BODY[] {3}\r\ntwo)\r\n% OK\r\n", strings.HasPrefix(command, "UID FETCH")
		}
		return "* 2 FETCH (UID 2 BODY[] {3}\r\ntwo)\r\n% OK\r\n", strings.HasPrefix(command, "UID FETCH")
	})
	var all []string
	err := opened(t, s).Bodies(t.Context(), []uint32{1, 2}, func(uid uint32, _ int64, body io.Reader) error {
		text, err := io.ReadAll(body)
		all = append(all, fmt.Sprint(uid, string(text)))
		return err
	})
	if slices.Sort(all); err != nil || !slices.Equal(all, []string{"1one", "2two"}) {
		t.Errorf("%v, %v", all, err)
	}
}

// An answer without an end costs this mailbox, and neither memory nor the others; what is long because
// there is much of it is read.
func TestEndless(t *testing.T) {
	const much = 17 << 20
	t.Run("one line", func(t *testing.T) {
		answer := "* LIST () \"/\" \"" + strings.Repeat("a", much)
		s := startScript(t, func(c string, _ int) (string, bool) { return answer, strings.HasPrefix(c, "LIST") })
		session := opened(t, s)
		if _, err := session.Folders(t.Context()); !errors.Is(err, mailstore.ErrProtocol) || mailstore.Platform(err) {
			t.Errorf("%v", err)
		}
		if _, err := session.Folders(t.Context()); err == nil {
			t.Error("the session goes on")
		}
	})
	t.Run("many messages", func(t *testing.T) {
		var all strings.Builder
		n := 0
		for ; all.Len() < much; n++ {
			fmt.Fprintf(&all, "* %d FETCH (UID %[1]d FLAGS () INTERNALDATE \"02-Mar-2026 10:00:00 +0100\" RFC822.SIZE 300 BODY[HEADER.FIELDS (TO)] {%d}\r\n%s)\r\n", n+1, 64<<10, strings.Repeat("x", 64<<10))
		}
		s := startScript(t, func(c string, _ int) (string, bool) {
			return all.String() + "% OK\r\n", strings.HasPrefix(c, "UID FETCH")
		})
		listed := 0
		if err := opened(t, s).List(t.Context(), 1, 0, func(mailstore.Message) error { listed++; return nil }); err != nil || listed != n {
			t.Errorf("%d of %d, %v", listed, n, err)
		}
	})
	t.Run("a long message", func(t *testing.T) {
		s := startScript(t, func(c string, _ int) (string, bool) {
			return fmt.Sprintf("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)\r\n%% OK\r\n", much, strings.Repeat("x", much)), strings.HasPrefix(c, "UID FETCH")
		})
		session := opened(t, s)
		err := session.Bodies(t.Context(), []uint32{1}, func(_ uint32, size int64, body io.Reader) error {
			n, err := io.Copy(io.Discard, body)
			if n != much || size != much {
				t.Errorf("%d of %d bytes", n, size)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
