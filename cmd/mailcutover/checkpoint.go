package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/audit"
	"mailcutover/audit/checkpoint"
)

// newAuditCheckpoint signs the log now.
func newAuditCheckpoint(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "checkpoint", Short: "Sign the node's audit log as it stands now", Args: cobra.NoArgs,
		Long: "Sign the node's audit log as it stands now, and print the line that says so. Kept where the\nnode can't write, it shows later what was written anew: mailcutover audit verify --checkpoints.\nIt changes nothing else; the node also signs by itself (audit.checkpoint_every).",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		one, err := client.SignAudit(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, one, func(w io.Writer) { fmt.Fprintln(w, printable(one.Line)) })
	})
}

// newAuditCheckpoints lists what was signed.
func newAuditCheckpoints(c *connection) *cobra.Command {
	var out string
	cmd := c.command(&cobra.Command{
		Use: "checkpoints", Short: "What the nodes have signed of their audit logs lately, as the table has it", Args: cobra.NoArgs,
		Long: "What the nodes have signed of their audit logs lately, as the table has it. The file of a node\n(audit.checkpoint_file) has all that it ever signed.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		list, err := client.AuditCheckpoints(cmd.Context())
		if err != nil {
			return err
		}
		if out != "" {
			var text strings.Builder
			for _, one := range list {
				fmt.Fprintln(&text, one.Line)
			}
			if err := writeNew(out, text.String()); err != nil {
				return notOverwritten(fmt.Errorf("write the checkpoints: %w", err))
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d checkpoints in %s\n", len(list), out)
			return nil
		}
		return c.show(cmd, list, func(w io.Writer) {
			var rows [][]string
			for _, one := range list {
				rows = append(rows, []string{one.Node, strconv.FormatUint(one.Count, 10), one.Time.UTC().Format(time.RFC3339), strconv.FormatUint(one.Record, 10), one.Key})
			}
			table(w, []string{"NODE", "COUNT", "TIME", "RECORD", "KEY"}, rows)
		})
	})
	cmd.Flags().StringVar(&out, "out", "", "new file to write their lines to, for audit verify")
	return cmd
}

// notOverwritten says what to do about a file that is there already.
func notOverwritten(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return withHint(err, "no file is overwritten: name another, or move this one away")
	}
	return err
}

// newAuditKey makes keys; it needs no node.
func newAuditKey(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Keys that sign audit logs"}
	var out, follows string
	create := &cobra.Command{
		Use: "new --out FILE", Short: "Make a key that signs a node's audit log; needs no node", Args: cobra.NoArgs,
		Long: "Make an Ed25519 key for audit.signing_key_file, and beside it FILE.pub with the public key, by\n" +
			"which anybody can check what was signed. With --follows the key of before says that the new one\n" +
			"follows it: who has that one's public key needs no other. Then set the new file, reload, and\ndestroy the old one.",
		Example: "  mailcutover audit key new --out /etc/mailcutover/audit.key\n  mailcutover audit key new --out audit-2027.key --follows audit.key",
	}
	create.RunE = func(cmd *cobra.Command, _ []string) error {
		var before *checkpoint.Key
		if follows != "" {
			var err error
			if before, err = checkpoint.ReadKey(follows); err != nil {
				return err
			}
		}
		k, err := checkpoint.NewKey(before)
		if err != nil {
			return err
		}
		private, err := k.PEM()
		if err != nil {
			return err
		}
		public, err := k.PublicPEM()
		if err != nil {
			return err
		}
		if err := writeNew(out, string(private)); err != nil {
			return notOverwritten(fmt.Errorf("write the key: %w", err))
		}
		if err := writeNew(out+".pub", string(public)); err != nil {
			return notOverwritten(errors.Join(fmt.Errorf("write the public key: %w", err), os.Remove(out)))
		}
		return c.show(cmd, map[string]any{"key": k.ID(), "file": out, "public": out + ".pub"}, func(w io.Writer) {
			pairs(w, [2]string{"key", string(k.ID())}, [2]string{"file", out}, [2]string{"public", out + ".pub"})
			fmt.Fprintln(w, "next: set audit.signing_key_file, mailcutover config reload; keep the public key where the log is checked\nundo: delete both files")
		})
	}
	create.Flags().StringVar(&out, "out", "", "new file for the key, readable by its owner only (required)")
	create.Flags().StringVar(&follows, "follows", "", "file with the key of before, which then signs that this one follows it")
	require(create, "out")
	cmd.AddCommand(create)
	return cmd
}

// evidence is what audit verify holds a log against.
type evidence struct {
	keys, files []string
	replaced    bool
}

func (e *evidence) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&e.keys, "key", nil, "file with a public key (audit key new) that is trusted; may be repeated")
	cmd.Flags().StringArrayVar(&e.files, "checkpoints", nil, "file with checkpoints that were kept elsewhere; may be repeated")
	cmd.Flags().BoolVar(&e.replaced, "replaced", false, "it is known that the node's log was begun anew: checkpoints of earlier ones are only listed")
}

// read returns what the files hold.
func (e *evidence) read() (out checkpoint.Evidence, err error) {
	out.Replaced = e.replaced
	for _, name := range e.keys {
		text, err := os.ReadFile(name)
		if err != nil {
			return out, fmt.Errorf("public key: %w", err)
		}
		var keys []ed25519.PublicKey
		if keys, err = checkpoint.ParsePublic(text); err != nil {
			return out, fmt.Errorf("%s: %w", name, err)
		}
		out.Keys = append(out.Keys, keys...)
	}
	for _, name := range e.files {
		f, err := os.Open(name)
		if err != nil {
			return out, fmt.Errorf("checkpoints: %w", err)
		}
		all, err := checkpoint.Read(f)
		_ = f.Close() // only read
		if err != nil {
			return out, fmt.Errorf("%s: %w", name, err)
		}
		out.Checkpoints = append(out.Checkpoints, all...)
	}
	return out, nil
}

// verifySigned holds a log against checkpoints, and against heads besides.
func (c *connection) verifySigned(cmd *cobra.Command, path string, e *evidence, heads []audit.Head) error {
	with, err := e.read()
	if err != nil {
		return err
	}
	r, err := checkpoint.Verify(with, func(more ...audit.Head) (audit.Report, error) { return verify(path, more) })
	if err == nil && len(heads) > 0 {
		_, err = verify(path, heads)
	}
	if err != nil {
		return badSigned(err)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", printable(note))
	}
	for _, chain := range r.Earlier {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the node has signed another log before, chain %s\n", printable(chain))
	}
	unsigned := r.Head.Number - r.Record
	view := map[string]any{
		"records": r.Head.Number, "head": r.Head.String(), "checkpoints": r.Checkpoints, "signed_records": r.Record, "unsigned_records": unsigned,
		"first": r.First, "last": r.Last, "keys": r.Keys, "earlier_chains": r.Earlier, "other_nodes_checkpoints": r.Others, "heads_compared": len(heads), "notes": r.Notes,
	}
	return c.show(cmd, view, func(w io.Writer) {
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, string(k))
		}
		pairs(w, [2]string{"records", strconv.FormatUint(r.Head.Number, 10)}, [2]string{"head", r.Head.String()},
			[2]string{"checkpoints", fmt.Sprintf("%d, from %s to %s", r.Checkpoints, r.First.Format(time.RFC3339), r.Last.Format(time.RFC3339))},
			[2]string{"signed by", strings.Join(keys, ", ")}, [2]string{"signed up to", fmt.Sprintf("record %d", r.Record)})
		if unsigned > 0 {
			fmt.Fprintf(w, "the log is the one that was signed; of the last %d records no checkpoint was given\n", unsigned)
		} else {
			fmt.Fprintln(w, "the log is the one that was signed")
		}
	})
}

// badSigned says what to do about a log that isn't the one that was signed.
func badSigned(err error) error {
	switch {
	case errors.Is(err, checkpoint.ErrBadCheckpoint):
		return withHint(err, "compare with another copy of the checkpoints; a key that is new and follows none needs its own --key")
	case errors.Is(err, checkpoint.ErrNoCheckpoint):
		return withHint(err, "take the file of that node: audit.checkpoint_file, or mailcutover audit checkpoints --out FILE")
	}
	if _, ok := errors.AsType[*checkpoint.Mismatch](err); ok {
		return withHint(err, "keep the folder and the checkpoints as they are, and look who had access; --replaced if it is known that the node's disk was replaced")
	}
	return badRecord(err)
}
