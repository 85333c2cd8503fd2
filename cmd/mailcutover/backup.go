package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/routing/backup"
)

// newBackupCommand returns the commands about copies of the table in a file.
func newBackupCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "backup", Short: "The table in a file: create, verify"}
	cmd.AddCommand(newBackupCreate(c), newBackupVerify(c))
	return cmd
}

// madeBackup is what create and verify say of a file.
type madeBackup struct {
	File      string    `json:"file"`
	Digest    string    `json:"digest"`
	Made      time.Time `json:"made"`
	Node      string    `json:"node"`
	Person    string    `json:"person"`
	Term      uint32    `json:"term"`
	Revision  uint64    `json:"revision"`
	Agencies  int       `json:"agencies"`
	Mailboxes int       `json:"mailboxes"`
	Open      int       `json:"open_operations"`
}

func describeBackup(file string, b *backup.Copy) madeBackup {
	h := &b.Header
	return madeBackup{
		File: file, Digest: b.Digest.String(), Made: h.Made, Node: string(h.Node), Person: h.Person, Term: h.Position.Term, Revision: uint64(h.Position.Revision),
		Agencies: len(b.Contents.Agencies), Mailboxes: b.Mailboxes, Open: len(b.Contents.Operations),
	}
}

func (m *madeBackup) print(w io.Writer) {
	pairs(w, [2]string{"file", m.File}, [2]string{"digest", m.Digest}, [2]string{"made", m.Made.Format(time.RFC3339)},
		[2]string{"copy of node", m.Node}, [2]string{"asked for by", m.Person},
		[2]string{"term", fmt.Sprint(m.Term)}, [2]string{"revision", fmt.Sprint(m.Revision)},
		[2]string{"agencies", fmt.Sprint(m.Agencies)}, [2]string{"mailboxes", fmt.Sprint(m.Mailboxes)}, [2]string{"open operations", fmt.Sprint(m.Open)})
}

func newBackupCreate(c *connection) *cobra.Command {
	var reason string
	var keep int
	cmd := c.command(&cobra.Command{
		Use: "create FILE", Short: "Write all that the table has into a new file", Args: cobra.ExactArgs(1),
		Long: "Write all that the table has into a new file: agencies, mailboxes, domains, operations,\ndocuments, as the node has them at one revision. The file is checked before it gets its\nname; its digest stands in the audit log. It has no secrets, but names of mailboxes.\n\n" +
			"FILE may have %s for the moment, as 20260131T020000Z. With --keep N older files that differ\nonly in that are removed, but for the newest N.",
		Example: "  mailcutover backup create /var/backups/table.ndjson --reason 'before wave 3'\n  mailcutover backup create /var/backups/table-%s.ndjson --keep 30 --reason nightly",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		name := args[0]
		if keep > 0 && strings.Count(filepath.Base(name), "%s") != 1 {
			return &usageError{err: errors.New("--keep: FILE has to have %s once, in its last part"), command: cmd.CommandPath()}
		}
		name = strings.Replace(name, "%s", time.Now().UTC().Format(backupMoment), 1)
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			return withHint(fmt.Errorf("backup: %s exists, or can't be looked for", name), "no file is overwritten: name another, or move this one away")
		}
		var made *backup.Copy
		err := writeDurably(name, func(w io.Writer) (err error) {
			made, err = client.Backup(cmd.Context(), w, reason)
			return err
		})
		if err != nil {
			return err
		}
		if keep > 0 {
			if err := removeOlder(args[0], keep); err != nil {
				return fmt.Errorf("the backup %s is made; older ones stay: %w", name, err)
			}
		}
		m := describeBackup(name, made)
		return c.show(cmd, m, m.print)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why; it stands in the audit log")
	cmd.Flags().IntVar(&keep, "keep", 0, "remove older ones but for so many, this one included (0: none)")
	return cmd
}

// backupMoment is how the moment is written into a backup's name.
const backupMoment = "20060102T150405Z"

// writeDurably writes a file under another name, makes it durable, and gives it its name.
func writeDurably(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".mailcutover-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil { // unlike a rename, never over another
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// removeOlder removes files that are named as pattern says, but for the newest.
func removeOlder(pattern string, keep int) error {
	before, after, _ := strings.Cut(filepath.Base(pattern), "%s")
	entries, err := os.ReadDir(filepath.Dir(pattern)) // by name, and so by time
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		moment, begins := strings.CutPrefix(e.Name(), before)
		moment, ends := strings.CutSuffix(moment, after)
		if !begins || !ends || !e.Type().IsRegular() {
			continue
		}
		if _, err := time.Parse(backupMoment, moment); err == nil {
			old = append(old, filepath.Join(filepath.Dir(pattern), e.Name()))
		}
	}
	for _, name := range old[:max(0, len(old)-keep)] {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func newBackupVerify(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE", Short: "Check a backup, without a node", Args: cobra.ExactArgs(1),
		Long:    "Check that a backup is whole and as it was written, and say what is in it. Its digest says\nwhich one it is: compare it with the audit log's (backup-table), or with what somebody\nwants to restore.",
		Example: "  mailcutover backup verify /var/backups/table.ndjson",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			defer f.Close()
			b, err := backup.Read(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			m := describeBackup(args[0], b)
			return c.show(cmd, m, m.print)
		},
	}
}
