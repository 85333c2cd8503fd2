package mailboxes

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf16"
)

// WriteMaildir writes the mailbox as a Maildir++ at dir, for a Dovecot that hasn't opened it
// yet. What it makes belongs to the owner of the directory above dir. UIDs are given by
// Dovecot, in the order of the messages.
func (m *Mailbox) WriteMaildir(dir string) error {
	keywords := m.keywords()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	n := 0
	for _, f := range m.Folders {
		at := dir
		if f.Name != Inbox {
			at = filepath.Join(dir, "."+strings.ReplaceAll(modifiedUTF7(f.Name), "/", "."))
		}
		if err := f.write(at, keywords, &n); err != nil {
			return fmt.Errorf("write mailbox %s: %w", m.Address, err)
		}
	}
	return own(filepath.Dir(dir), dir)
}

// keywords are all that the mailbox has, sorted: Dovecot keeps 26 in the names of files.
func (m *Mailbox) keywords() []string {
	var all []string
	for _, f := range m.Folders {
		for _, msg := range f.Messages {
			for _, flag := range msg.Flags {
				if flag[0] != '\\' {
					all = append(all, flag)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (f *Folder) write(dir string, keywords []string, n *int) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	var list bytes.Buffer
	for i, k := range keywords {
		fmt.Fprintf(&list, "%d %s\n", i, k)
	}
	if err := os.WriteFile(filepath.Join(dir, "dovecot-keywords"), list.Bytes(), 0o600); err != nil {
		return err
	}
	if f.Name != Inbox {
		if err := os.WriteFile(filepath.Join(dir, "maildirfolder"), nil, 0o600); err != nil {
			return err
		}
	}
	for _, msg := range f.Messages {
		*n++
		text := bytes.ReplaceAll(msg.Raw, []byte("\r\n"), []byte("\n"))
		name := fmt.Sprintf("%d.M%dP1.made,S=%d,W=%d:2,%s", 1_600_000_000+*n, *n%1_000_000, len(text), len(msg.Raw), letters(msg.Flags, keywords))
		path := filepath.Join(dir, "cur", name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(path, msg.Internal, msg.Internal); err != nil {
			return err
		}
	}
	return nil
}

// letters are flags as they stand in a file's name, in ASCII order.
func letters(flags, keywords []string) string {
	var out []byte
	for _, f := range flags {
		switch f {
		case `\Draft`:
			out = append(out, 'D')
		case `\Flagged`:
			out = append(out, 'F')
		case `\Answered`:
			out = append(out, 'R')
		case `\Seen`:
			out = append(out, 'S')
		case `\Deleted`:
			out = append(out, 'T')
		default:
			if i := slices.Index(keywords, f); i >= 0 && i < 26 {
				out = append(out, byte('a'+i))
			}
		}
	}
	slices.Sort(out)
	return string(out)
}

// own gives everything below path to the owner of above.
func own(above, path string) error {
	info, err := os.Stat(above)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() {
		return nil
	}
	return filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(owner.Uid), int(owner.Gid))
	})
}

// modifiedUTF7 writes a folder's name as IMAP does (RFC 3501 section 5.1.3).
func modifiedUTF7(name string) string {
	var b strings.Builder
	var units []uint16
	flush := func() {
		if len(units) == 0 {
			return
		}
		raw := make([]byte, 0, 2*len(units))
		for _, u := range units {
			raw = append(raw, byte(u>>8), byte(u))
		}
		units = nil
		b.WriteString("&" + strings.ReplaceAll(base64.RawStdEncoding.EncodeToString(raw), "/", ",") + "-")
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			units = utf16.AppendRune(units, r)
			continue
		}
		flush()
		if b.WriteRune(r); r == '&' {
			b.WriteByte('-')
		}
	}
	flush()
	return b.String()
}
