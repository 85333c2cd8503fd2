package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newRetainedCommand returns the commands about retained copies.
func newRetainedCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "retained", Short: "Copies of what went to targets, kept until the way back is over",
		Long: "Copies of what went to an agency's target are kept on the nodes through which it went, until\n" +
			"the agency is finalised, or a bound is reached. After a rollback with a dead target they\n" +
			"are delivered to the source: mailcutover recall.",
	}
	cmd.AddCommand(newRetainedStatus(c), newRetainedList(c), newRetainedShow(c), newRetainedFetch(c))
	return cmd
}

func newRetainedStatus(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "status", Short: "How many copies there are, by node and agency, and what is gone", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		st, err := client.Retained(cmd.Context())
		if err != nil {
			return err
		}
		warnMissing(cmd, st.Missing, "its copies are not here")
		return c.show(cmd, st, func(w io.Writer) {
			var rows [][]string
			for _, n := range st.Nodes {
				for _, a := range n.Agencies {
					gone := ""
					if r := a.Removed; r != nil {
						gone = fmt.Sprintf("%d up to %s (%s)", r.Copies, local(r.Last), r.Reason)
					}
					rows = append(rows, []string{n.Node, a.Agency, fmt.Sprint(a.Copies), size(a.Bytes), local(a.First), local(a.Last), fmt.Sprint(a.Failed), gone})
				}
			}
			table(w, []string{"NODE", "AGENCY", "COPIES", "SIZE", "OLDEST", "NEWEST", "NOT KEPT", "REMOVED"}, rows)
			for _, n := range st.Nodes {
				printRetainedNode(w, &n)
			}
		})
	})
}

func printRetainedNode(w io.Writer, n *admin.RetainedNode) {
	if !n.Kept {
		fmt.Fprintf(w, "node %s keeps no copies (retained.agency_bytes is 0)\n", printable(n.Node))
		return
	}
	sealed := "not encrypted"
	if n.Key != "" {
		sealed = "encrypted with key " + n.Key
	}
	fmt.Fprintf(w, "node %s: %s, %s, %s\n", printable(n.Node), firstOf(count(n.Copies, "copy", "copies"), "no copies"), size(n.Bytes), sealed)
	if n.Failed > 0 {
		fmt.Fprintf(w, "node %s: %d copies could not be kept since its start; the mail itself was delivered\n", printable(n.Node), n.Failed)
	}
	if n.Error != "" {
		fmt.Fprintf(w, "node %s: no copies since %s: %s\n", printable(n.Node), local(n.Since), oneLine(n.Error))
	}
	if n.Damaged > 0 {
		fmt.Fprintf(w, "node %s: %d copies that were read are damaged\n", printable(n.Node), n.Damaged)
	}
}

// addCopies adds the flags that say which copies.
func addCopies(cmd *cobra.Command, q *admin.RetainedQuery) {
	cmd.Flags().StringVar(&q.Agency, "agency", "", "of this agency")
	cmd.Flags().StringVar(&q.Transaction, "transaction", "", "of this message")
	cmd.Flags().StringVar(&q.Recipient, "rcpt", "", "for this address")
	cmd.MarkFlagsOneRequired("agency", "transaction", "rcpt")
	cmd.Flags().IntVar(&q.Limit, "limit", 1000, "at most so many, the oldest, up to 10000")
}

func newRetainedList(c *connection) *cobra.Command {
	var q admin.RetainedQuery
	var since, until moment
	cmd := c.command(&cobra.Command{
		Use: "list", Short: "Copies, without content, the oldest first", Args: cobra.NoArgs,
		Example: "  mailcutover retained list --agency health --since 2d",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		q.Since, q.Until = since.Time, until.Time
		found, err := client.RetainedCopies(cmd.Context(), q)
		if err != nil {
			return err
		}
		warnMissing(cmd, found.Missing, "its copies are not here")
		for _, note := range found.Notes {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", oneLine(note))
		}
		if found.More {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: there is more; these are the oldest %d copies (--limit, --since, --until)\n", len(found.Copies))
		}
		return c.show(cmd, found.Copies, func(w io.Writer) {
			var rows [][]string
			for _, one := range found.Copies {
				rows = append(rows, []string{local(&one.Kept), one.Node, one.Transaction, "<" + one.From + ">", copiedFor(&one), size(one.Size), one.Platform})
			}
			table(w, []string{"KEPT", "NODE", "TRANSACTION", "FROM", "RECIPIENTS", "SIZE", "PLATFORM"}, rows)
		})
	})
	addCopies(cmd, &q)
	addSpan(cmd, &since, &until)
	return cmd
}

func copiedFor(c *admin.RetainedCopy) string {
	var all []string
	for _, r := range c.Recipients {
		all = append(all, r.Address)
	}
	return strings.Join(all, " ")
}

func newRetainedShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "show TRANSACTION", Short: "The copies of a message, without its content", Args: cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		found, err := client.RetainedCopies(cmd.Context(), admin.RetainedQuery{Transaction: args[0]})
		if err != nil {
			return err
		}
		warnMissing(cmd, found.Missing, "its copies are not here")
		return c.show(cmd, found.Copies, func(w io.Writer) {
			if len(found.Copies) == 0 {
				fmt.Fprintln(w, "no copy of such a message")
			}
			for i, one := range found.Copies {
				if i > 0 {
					fmt.Fprintln(w)
				}
				pairs(w, [2]string{"transaction", one.Transaction}, [2]string{"node", one.Node}, [2]string{"agency", one.Agency}, [2]string{"platform", one.Platform},
					[2]string{"kept", one.Kept.UTC().Format(time.RFC3339)}, [2]string{"from", "<" + one.From + ">"}, [2]string{"message-id", one.MessageID},
					[2]string{"size", size(one.Size)}, [2]string{"digest", one.Digest})
				var rows [][]string
				for _, r := range one.Recipients {
					rows = append(rows, []string{r.Address, r.Mailbox, r.Epoch})
				}
				table(w, []string{"RECIPIENT", "MAILBOX", "EPOCH"}, rows)
			}
		})
	})
}

func newRetainedFetch(c *connection) *cobra.Command {
	var reason, output string
	cmd := c.command(&cobra.Command{
		Use: "fetch TRANSACTION --output FILE", Short: "A retained message itself, for who may read it", Args: cobra.ExactArgs(1),
		Long: "Writes the message as it went to the platform, with our Received line. The node that has it\n" +
			"has to be asked (retained list says which). It takes a token of the role admin, and the\n" +
			"reason stands in the audit log before the first byte is sent.",
		Example: "  mailcutover retained fetch 06h0cq3v... --output message.eml --reason 'asked for by its recipient, ticket 4711'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		f, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return notOverwritten(fmt.Errorf("write the message: %w", err))
		}
		err = client.FetchRetained(cmd.Context(), args[0], reason, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return errors.Join(err, os.Remove(output))
		}
		return c.show(cmd, map[string]string{"transaction": args[0], "file": output}, func(w io.Writer) {
			fmt.Fprintf(w, "message %s is in %s\n", printable(args[0]), printable(output))
		})
	})
	cmd.Flags().StringVar(&output, "output", "", "file to write, which must not exist (required)")
	require(cmd, "output")
	addReason(cmd, &reason)
	return cmd
}
