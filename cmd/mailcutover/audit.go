package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/audit"
)

// newAuditCommand returns the commands about the audit log.
func newAuditCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "What people did: head, heads, export, verify, checkpoint, checkpoints, key"}
	head := c.command(&cobra.Command{
		Use: "head", Short: "Where the node's audit log ends", Args: cobra.NoArgs,
		Long: "Where the node's audit log ends. Whoever keeps this line elsewhere, on paper or in another\nsystem, can show later that the log before it was not written anew or cut.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		h, err := client.AuditHead(cmd.Context())
		if err != nil {
			return err
		}
		if h.Damage != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: the log is damaged: %s\n", printable(h.Damage))
		}
		return c.show(cmd, h, func(w io.Writer) { fmt.Fprintln(w, printable(h.Head)) })
	})
	heads := c.command(&cobra.Command{Use: "heads", Short: "Where the audit logs of all nodes ended, as the table has it", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			list, err := client.AuditHeads(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, list, func(w io.Writer) {
				var rows [][]string
				for _, h := range list {
					rows = append(rows, []string{h.Node, yesNo(h.Last), h.Head})
				}
				table(w, []string{"NODE", "LAST", "HEAD"}, rows)
			})
		})
	var out string
	export := c.command(&cobra.Command{Use: "export", Short: "The node's audit log, verified: a record in each line", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			w := cmd.OutOrStdout()
			if out != "" {
				f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return notOverwritten(fmt.Errorf("export: %w", err))
				}
				defer f.Close()
				w = f
			}
			h, err := client.AuditExport(cmd.Context(), w)
			if err != nil {
				return badRecord(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d records; head: %s\n", h.Number, printable(h.String()))
			return nil
		})
	export.Flags().StringVar(&out, "out", "", "file that is written (default: standard output)")
	cmd.AddCommand(head, heads, export, newAuditVerify(c), newAuditCheckpoint(c), newAuditCheckpoints(c), newAuditKey(c))
	return cmd
}

// newAuditVerify needs no node.
func newAuditVerify(c *connection) *cobra.Command {
	var texts []string
	var against evidence
	cmd := &cobra.Command{
		Use: "verify FILE|DIRECTORY", Short: "Whether an audit log is whole; needs no node", Args: cobra.ExactArgs(1),
		Long: "Whether an exported audit log, or the folder audit of a node's data, is whole. What was\nchanged, removed, inserted or moved is found by the log itself; that its end was cut, or\nthat it was written anew, only by a --head or by signed --checkpoints that were kept elsewhere;\nthese also say between which records.",
		Example: "  mailcutover audit verify audit.log --head mx1.example.org/K7.../17/5f...\n" +
			"  mailcutover audit verify /var/lib/mailcutover/audit\n" +
			"  mailcutover audit verify audit.log --key audit.key.pub --checkpoints kept.txt",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var heads []audit.Head
		for _, t := range texts {
			h, err := audit.ParseHead(t)
			if err != nil {
				return &usageError{command: "mailcutover audit verify", err: err}
			}
			heads = append(heads, h)
		}
		if (len(against.keys) == 0) != (len(against.files) == 0) || against.replaced && len(against.files) == 0 {
			return &usageError{command: "mailcutover audit verify", err: errors.New("--key and --checkpoints go together, --replaced with them only")}
		}
		if len(against.files) > 0 {
			return c.verifySigned(cmd, args[0], &against, heads)
		}
		report, err := verify(args[0], heads)
		if err != nil {
			return badRecord(err)
		}
		for _, note := range report.Notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", printable(note))
		}
		view := map[string]any{"records": report.Head.Number, "head": report.Head.String(), "heads_compared": report.Heads, "notes": report.Notes}
		return c.show(cmd, view, func(w io.Writer) {
			pairs(w, [2]string{"records", strconv.FormatUint(report.Head.Number, 10)}, [2]string{"head", report.Head.String()},
				[2]string{"heads compared", strconv.Itoa(report.Heads)})
			if len(heads) == 0 {
				fmt.Fprintln(w, "the log is whole in itself; without a --head from elsewhere nothing shows whether its end was cut, or all of it written anew")
			} else {
				fmt.Fprintln(w, "the log is whole")
			}
		})
	}
	against.flags(cmd)
	cmd.Flags().StringArrayVar(&texts, "head", nil, "head that was kept elsewhere; may be repeated")
	return cmd
}

func verify(path string, heads []audit.Head) (audit.Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return audit.Report{}, fmt.Errorf("audit log: %w", err)
	}
	if info.IsDir() {
		return audit.VerifyDir(nil, path, nil, heads...)
	}
	f, err := os.Open(path)
	if err != nil {
		return audit.Report{}, fmt.Errorf("audit log: %w", err)
	}
	defer f.Close()
	return audit.Verify(f, heads...)
}

// badRecord says what to do about a log that isn't the one that was written.
func badRecord(err error) error {
	if _, ok := errors.AsType[*audit.BadRecord](err); ok {
		return withHint(err, "the records before it are good; copy the folder as it is, and look who had access to it")
	}
	return err
}
