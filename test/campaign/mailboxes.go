package campaign

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// Copy is a message as it lies in a mailbox.
type Copy struct {
	Key
	Folder  string
	UID     uint32
	Flags   []string
	Arrived time.Time // when a platform first took it; whoever brings it keeps that
}

// Key is what a message is known by. The one that is delivered twice is two.
type Key struct {
	ID          int                // that the test gave it
	Transaction mail.TransactionID // of its delivery; empty: a user made it
}

// Boxes are mailboxes by address.
type Boxes map[string][]Copy

// Store is a platform with mailboxes: a Dovecot, and the doors by which the nodes come.
type Store struct {
	*peers.Dovecot
	Platform   string
	LMTPDoor   *Door
	IMAPDoor   *Door
	Advertised *peers.Dovecot // its addresses, as the nodes know them

	mending sync.Mutex // held while something is done to it
}

// nodesEnter lets the nodes into all mailboxes of a Dovecot.
const nodesEnter = "auth_master_user_separator = *\npassdb {\n  driver = static\n  master = yes\n  args = password=" + cluster.MasterPassword + "\n}\n"

// dovecotUnderFire are settings of a Dovecot whose clients are cut off all the time. With an index of
// folders, processes of 2.3 that were cut off amid a message have locked each other out of a mailbox for
// minutes (seed 9, in dovecot.list.index.log).
const dovecotUnderFire = "mail_max_userip_connections = 200\nmailbox_list_index = no"

// StartStore starts a platform that ends each connection by which mail comes after a time.
func StartStore(t peers.TB, platform, ip string, lifetime time.Duration) *Store {
	t.Helper()
	s := &Store{Platform: platform, Dovecot: peers.StartDovecot(t, peers.DovecotOptions{First: nodesEnter, Extra: dovecotUnderFire})}
	var secure *tls.Config
	if !net.ParseIP(ip).IsLoopback() { // nobody's password crosses a network in plain text
		ca, err := platformtest.NewCA()
		if err == nil {
			secure, err = ca.ServerConfig(ip)
		}
		if err != nil {
			t.Fatalf("certificate of platform %s: %v", platform, err)
		}
	}
	s.LMTPDoor, s.IMAPDoor = NewDoor(t, ip, s.LMTP, nil, lifetime), NewDoor(t, ip, s.IMAP, secure, 0)
	s.Advertised = &peers.Dovecot{LMTP: s.LMTPDoor.Addr, IMAP: s.IMAPDoor.Addr}
	return s
}

// programPatience is how long a user's mail program is at work at most.
const programPatience = 20 * time.Second

// As lets a user's mail program do something in his mailbox. It comes by no door.
func (s *Store) As(ctx context.Context, user string, do func(c *imapclient.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, programPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.IMAP)
	if err != nil {
		return fmt.Errorf("mailbox %s at %s: %w", user, s.Platform, err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := imapclient.New(conn, nil)
	defer c.Close()
	if err = c.Login(user, "secret").Wait(); err == nil {
		err = do(c)
	}
	if err != nil {
		return fmt.Errorf("mailbox %s at %s: %w", user, s.Platform, err)
	}
	return nil
}

// Look reads mailboxes.
func (s *Store) Look(ctx context.Context, users []string) (Boxes, error) {
	all := make(Boxes)
	for _, user := range users {
		if err := s.As(ctx, user, func(c *imapclient.Client) error {
			copies, err := lookAround(c)
			all[user] = copies
			return err
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// lookAround returns all that is in a mailbox.
func lookAround(c *imapclient.Client) (all []Copy, err error) {
	folders, err := c.List("", "*", nil).Collect()
	if err != nil {
		return nil, err
	}
	for _, f := range folders {
		if slices.Contains(f.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(f.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		list, err := lookInto(c, f.Mailbox)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

var (
	numberLine  = regexp.MustCompile(`(?m)^X-Test-Id: (\d+)`)
	deliveredBy = regexp.MustCompile(`\(mailcutover mailcutover\) with \w+ id ([0-9A-Za-z-]+);`)
)

// lookInto opens a folder and returns what is in it.
func lookInto(c *imapclient.Client, folder string) (all []Copy, err error) {
	open, err := c.Select(folder, nil).Wait()
	if err != nil || open.NumMessages == 0 {
		return nil, err
	}
	header := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Peek: true}
	list, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{header}}).Collect()
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		text := m.FindBodySection(header)
		if text == nil {
			return nil, fmt.Errorf("folder %s gives no header of message %d", folder, m.UID)
		}
		one := Copy{Folder: folder, UID: uint32(m.UID), Arrived: m.InternalDate}
		if found := numberLine.FindSubmatch(text); found != nil {
			one.ID, _ = strconv.Atoi(string(found[1]))
		}
		if found := deliveredBy.FindSubmatch(text); found != nil {
			one.Transaction = mail.TransactionID(found[1])
		}
		for _, f := range m.Flags {
			one.Flags = append(one.Flags, string(f))
		}
		all = append(all, one)
	}
	return all, nil
}

// What a user does.
const (
	actDelete = "deleted"
	actMove   = "moved"
	actFlag   = "flagged"
	actMake   = "made"
)

// Act is what a user did to a message, or may have done.
type Act struct {
	What     string
	Platform string
	Mailbox  string
	Key      Key
	Into     string // folder; of actMove and actMake
	Flag     string // of actFlag
	Before   time.Time
	At       time.Time // when it was done
	Sure     bool      // false: the mail program lost its connection
}

// projects is the folder that users move to, and sent the one for what they make.
const (
	projects = "Projekte"
	sentMail = "Sent"
)

// act has a user do one thing. The error says that his mail program failed; what it was about is
// in the act all the same, if there is one.
func (s *Store) act(ctx context.Context, user, what, flag string, made int, pick func(n int) int) (a *Act, err error) {
	err = s.As(ctx, user, func(c *imapclient.Client) error {
		if what == actMake {
			a = &Act{What: what, Platform: s.Platform, Mailbox: user, Key: Key{ID: made}, Into: sentMail}
			if err := create(c, sentMail); err != nil {
				return err
			}
			a.Before = time.Now()
			return put(c, sentMail, fmt.Sprintf("From: %s\r\nTo: friend@out.example\r\nDate: %s\r\nSubject: %d\r\nMessage-ID: <made-%d@%s>\r\nX-Test-Id: %d\r\n\r\ntext %d\r\n", user, time.Now().Format(time.RFC1123Z), made, made, s.Platform, made, made))
		}
		folder := "INBOX"
		if what != actMove && pick(4) == 0 {
			folder = projects
			if err := create(c, projects); err != nil {
				return err
			}
		}
		all, err := lookInto(c, folder)
		if err != nil || len(all) == 0 {
			return err
		}
		one := all[pick(len(all))]
		uid := imap.UIDSetNum(imap.UID(one.UID))
		if what == actMove {
			if err := create(c, projects); err != nil {
				return err
			}
		}
		a = &Act{What: what, Platform: s.Platform, Mailbox: user, Key: one.Key, Before: time.Now()}
		switch what {
		case actDelete:
			if err := c.Store(uid, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				return err
			}
			return c.UIDExpunge(uid).Close()
		case actMove:
			a.Into = projects
			_, err := c.Move(uid, projects).Wait()
			return err
		case actFlag:
			a.Flag = flag
			return c.Store(uid, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.Flag(flag)}}, nil).Close()
		}
		return fmt.Errorf("no user does %q", what)
	})
	if a != nil {
		a.At, a.Sure = time.Now(), err == nil
		if err != nil {
			a.At = time.Time{}
		}
	}
	return a, err
}

// create makes a folder if it isn't there.
func create(c *imapclient.Client, folder string) error {
	err := c.Create(folder, nil).Wait()
	if answer, ok := errors.AsType[*imap.Error](err); ok && answer.Code == imap.ResponseCodeAlreadyExists {
		return nil
	}
	return err
}

func put(c *imapclient.Client, folder, text string) error {
	cmd := c.Append(folder, int64(len(text)), nil)
	if _, err := cmd.Write([]byte(text)); err != nil {
		return err
	}
	if err := cmd.Close(); err != nil {
		return err
	}
	_, err := cmd.Wait()
	return err
}
