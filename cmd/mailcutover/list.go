package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// newListCommand returns the commands about lists of mailboxes.
func newListCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "Lists of mailboxes: generate, check, import, approve, activate"}
	cmd.AddCommand(newListGenerate(c), newListCheck(c), newListImport(c), newListList(c), newListShow(c), newListDiff(c),
		newListApprove(c), newListActivate(c), newListWithdraw(c), newListDrift(c))
	return cmd
}

func newListGenerate(c *connection) *cobra.Command {
	var of admin.NewLists
	var dir string
	cmd := c.command(&cobra.Command{
		Use: "generate --agency AGENCY", Short: "Make lists of an agency's mailboxes, as CSV files", Args: cobra.NoArgs,
		Long: "Make lists of an agency's mailboxes, as CSV files: what lists in force name is taken from them,\nthe others from the directory's last reading. Where the two contradict each other, nothing is made\nand each row is named. Each row has a keyed digest, so that a cell which is changed shows. No file\nis overwritten.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		var made admin.GeneratedLists
		err := c.whileReading(cmd, client, of.Refresh, func() (err error) {
			made, err = client.Generate(cmd.Context(), of)
			return err
		})
		if err != nil {
			return err
		}
		if c.json {
			return c.show(cmd, made, nil)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return withHint(fmt.Errorf("make the directory of the lists: %w", err), "name another directory with --out")
		}
		var rows [][]string
		for _, l := range made.Lists {
			path := filepath.Join(dir, filepath.Base(l.ID)+".csv")
			if err := writeListFile(path, l.CSV); err != nil {
				return withHint(err, "name another directory with --out; lists that were written are "+strconv.Itoa(len(rows)))
			}
			rows = append(rows, []string{path, strconv.Itoa(l.Rows)})
		}
		return c.show(cmd, made, func(w io.Writer) {
			table(w, []string{"FILE", "MAILBOXES"}, rows)
			fmt.Fprintf(w, "%d mailboxes as lists in force have them, %d from the directory, read at %s; nothing was stored\n", made.Recorded, made.Added, local(&made.Read))
			for _, d := range made.Differences {
				fmt.Fprintf(w, "changed: %s\n", printable(d))
			}
			if len(rows) > 0 {
				fmt.Fprintf(w, "next: mailcutover list import %s --agency %s --reason ...\n", quoted(rows[0][0]), of.Agency)
			}
		})
	})
	cmd.Flags().StringVar(&of.Agency, "agency", "", "the agency (required)")
	cmd.Flags().StringVar(&dir, "out", ".", "directory for the files; it is made if it isn't there")
	cmd.Flags().BoolVar(&of.Refresh, "refresh", false, "read the directories first")
	cmd.Flags().BoolVar(&of.AcceptChanges, "accept-changes", false, "where the directory says otherwise than lists in force, take its word")
	require(cmd, "agency")
	return cmd
}

// writeListFile writes a file that isn't there yet.
func writeListFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}

// readList reads a list's file.
func readList(path, agency string, refresh bool) (admin.ListFile, error) {
	f, err := openList(path, "CSV or XLSX")
	if err != nil {
		return admin.ListFile{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, list.MaxBytes+1))
	if err != nil {
		return admin.ListFile{}, fmt.Errorf("list: %w", err)
	}
	if len(b) > list.MaxBytes {
		return admin.ListFile{}, fmt.Errorf("list: %s has more than %d bytes", path, list.MaxBytes)
	}
	return admin.ListFile{Agency: agency, Name: filepath.Base(path), Content: b, Refresh: refresh}, nil
}

func newListCheck(c *connection) *cobra.Command {
	var agency, out string
	var r admin.ReportFormat
	var refresh bool
	cmd := c.command(&cobra.Command{
		Use: "check FILE --agency AGENCY", Short: "Compare a list with the directories, the table and earlier lists", Args: cobra.ExactArgs(1),
		Long: "Compare a list, CSV or XLSX, with the directories, the table and the agency's earlier lists,\nrow by row. Nothing is stored. The exit code is 1 if the list would be refused.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		file, err := readList(args[0], agency, refresh)
		if err != nil {
			return err
		}
		r.Color = out == "" && r.Format == "text" && isTerminal(cmd.OutOrStdout()) && !c.noColor && os.Getenv("NO_COLOR") == ""
		r.All = r.All || r.Format == "html"
		var found admin.CheckedList
		err = c.whileReading(cmd, client, refresh, func() (err error) {
			found, err = client.CheckList(cmd.Context(), file, r)
			return err
		})
		if err != nil {
			return err
		}
		switch {
		case c.json:
			err = c.show(cmd, found, nil)
		case out != "":
			if err = os.WriteFile(out, []byte(found.Report), 0o644); err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "the report is in %s\n", out)
			}
		default:
			_, err = io.WriteString(cmd.OutOrStdout(), terminal(found.Report, r.Color))
		}
		if err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		if found.Clean {
			return nil
		}
		refused := &admin.Problem{Detail: "the list would be refused", Hint: "the report says which rows are wrong, and what is right"}
		if len(found.Problems) > 0 {
			refused.Hint = "correct the file; nothing was stored"
			if c.json || out != "" { // else the report was just shown
				refused.Errors = found.Problems
			}
		}
		return refused
	})
	cmd.Flags().StringVar(&agency, "agency", "", "agency that the list is said to be of (required)")
	cmd.Flags().StringVar(&r.Format, "format", "text", "of the report: text, html, csv or json")
	cmd.Flags().StringVar(&r.Language, "language", "en", "of the report: en or de")
	cmd.Flags().StringVar(&out, "out", "", "file for the report (default: standard output)")
	cmd.Flags().BoolVar(&r.All, "all", false, "all rows that are not right, and not only the first 50")
	cmd.Flags().BoolVar(&refresh, "refresh", false, "read the directories first")
	require(cmd, "agency")
	return cmd
}

// terminal keeps a report from steering the terminal, but for its own colours.
func terminal(s string, color bool) string {
	if !color {
		return printable(s)
	}
	var b strings.Builder
	for i, part := range strings.Split(s, "\x1b[") {
		if i == 0 {
			b.WriteString(printable(part))
			continue
		}
		code, rest, ok := strings.Cut(part, "m")
		if !ok || strings.Trim(code, "0123456789;") != "" {
			b.WriteString(printable("\x1b[" + part))
			continue
		}
		b.WriteString("\x1b[" + code + "m" + printable(rest))
	}
	return b.String()
}

func newListImport(c *connection) *cobra.Command {
	var agency, reason string
	var refresh bool
	cmd := c.command(&cobra.Command{
		Use: "import FILE --agency AGENCY", Short: "Propose a list", Args: cobra.ExactArgs(1),
		Long: "Propose a list, CSV or XLSX. If anything of it is wrong it is refused as a whole, with every row.\nWhat is approved is this list and what its check found: it is void when one of them changes.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		file, err := readList(args[0], agency, refresh)
		if err != nil {
			return err
		}
		var p admin.Proposal
		err = c.whileReading(cmd, client, refresh, func() (err error) {
			p, err = client.ImportList(cmd.Context(), file, reason)
			return err
		})
		if err != nil {
			return err
		}
		id := listOfProposal(cmd, client, p)
		return c.show(cmd, p, func(w io.Writer) {
			printProposal(w, p)
			fmt.Fprintln(w)
			if p.Missing > 0 {
				fmt.Fprintf(w, "proposed; %d other %s to approve it until %s\nnext: another person: mailcutover list approve %s\n", p.Missing, plural(p.Missing, "person has", "persons have"), local(&p.Expires), id)
			}
			fmt.Fprintf(w, "then: mailcutover list activate %s\nundo: mailcutover list withdraw %s --reason ...\n", id, id)
		})
	})
	cmd.Flags().StringVar(&agency, "agency", "", "agency that the list is of (required)")
	cmd.Flags().BoolVar(&refresh, "refresh", false, "read the directories first")
	addReason(cmd, &reason)
	require(cmd, "agency")
	return cmd
}

// listOfProposal returns the id of the list that a proposal is about.
func listOfProposal(cmd *cobra.Command, client *admin.Client, p admin.Proposal) string {
	if all, err := client.Lists(cmd.Context(), p.Agency); err == nil {
		for _, l := range all.Lists {
			if l.Proposal == p.ID {
				return l.ID
			}
		}
	}
	return "LIST"
}

func newListList(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{Use: "list", Short: "Lists that were proposed or approved, the newest first", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Lists(cmd.Context(), agency)
			if err != nil {
				return err
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for _, l := range all.Lists {
					rows = append(rows, []string{l.ID, l.Agency, strconv.Itoa(l.Mailboxes), l.Standing, local(&l.Since), l.By, strings.Join(l.Approved, ", ")})
				}
				table(w, []string{"LIST", "AGENCY", "MAILBOXES", "STANDING", "SINCE", "BY", "APPROVED BY"}, rows)
				for _, text := range all.Unreadable {
					fmt.Fprintln(w, "unreadable: "+printable(text))
				}
			})
		})
	cmd.Flags().StringVar(&agency, "agency", "", "only of this agency")
	return cmd
}

func newListShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "show LIST", Short: "One list with its rows", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			l, err := client.List(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, l, func(w io.Writer) {
				pairs(w, [2]string{"list", l.ID}, [2]string{"agency", l.Agency}, [2]string{"mailboxes", strconv.Itoa(l.Mailboxes)}, [2]string{"standing", l.Standing},
					[2]string{"since", local(&l.Since)}, [2]string{"by", l.By}, [2]string{"file", l.Source}, [2]string{"approved by", strings.Join(l.Approved, ", ")},
					[2]string{"proposal", l.Proposal}, [2]string{"directory read", local(&l.Checked)}, [2]string{"digest", l.Digest}, [2]string{"check", l.Check})
				fmt.Fprintln(w)
				var rows [][]string
				for i, r := range l.Rows {
					rows = append(rows, []string{strconv.Itoa(i + 1), r.Address, r.ID, r.Account})
				}
				table(w, []string{"ROW", "ADDRESS", "DIRECTORY ID", "ACCOUNT"}, rows)
			})
		})
}

func newListDiff(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{
		Use: "diff A B", Short: "What list B says otherwise than list A: ids of lists, or files", Args: cobra.ExactArgs(2),
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		var both [2]*list.List
		for i, name := range args {
			var err error
			if both[i], err = c.listNamed(cmd, client, name, agency); err != nil {
				return err
			}
		}
		all := list.Diff(both[0], both[1])
		return c.show(cmd, all, func(w io.Writer) {
			var rows [][]string
			for _, d := range all {
				was := string(d.Was)
				if !d.WasID.IsZero() {
					was = d.WasID.String()
				}
				rows = append(rows, []string{string(d.Change), string(d.Address), d.ID.String(), was})
			}
			if len(rows) == 0 {
				fmt.Fprintln(w, "both lists say the same")
				return
			}
			table(w, []string{"CHANGE", "ADDRESS", "DIRECTORY ID", "WAS"}, rows)
		})
	})
	cmd.Flags().StringVar(&agency, "agency", "", "agency that files are of")
	return cmd
}

// listNamed returns the rows of a file, or of a list in the table.
func (c *connection) listNamed(cmd *cobra.Command, client *admin.Client, name, agency string) (*list.List, error) {
	var rows []admin.ListRow
	if _, err := os.Stat(name); err == nil {
		if agency == "" {
			return nil, &usageError{err: errors.New("--agency is needed to read a file"), command: cmd.CommandPath()}
		}
		file, err := readList(name, agency, false)
		if err != nil {
			return nil, err
		}
		found, err := client.CheckList(cmd.Context(), file, admin.ReportFormat{Rows: true})
		if err != nil {
			return nil, err
		}
		if len(found.Problems) > 0 {
			return nil, &admin.Problem{Detail: fmt.Sprintf("%s can't be read as a list", name), Errors: found.Problems}
		}
		rows = found.Rows
	} else {
		l, err := client.List(cmd.Context(), name)
		if err != nil {
			return nil, err
		}
		rows, agency = l.Rows, l.Agency
	}
	out := &list.List{ID: name, Agency: routing.AgencyID(agency)}
	for _, r := range rows {
		id, err := routing.ParseMailboxID(r.ID)
		if err != nil {
			return nil, err
		}
		out.Rows = append(out.Rows, list.Row{Address: routing.Address(r.Address), Account: r.Account, ID: id, Agency: out.Agency})
	}
	return out, nil
}

func newListApprove(c *connection) *cobra.Command {
	var digest, words, note string
	cmd := c.command(&cobra.Command{
		Use: "approve LIST", Short: "Approve a list that somebody else has proposed", Args: cobra.ExactArgs(1),
		Long: "Approve a list that somebody else has proposed. On a terminal it is shown; who approves it types\nthe number of its mailboxes, or its agency. Elsewhere --digest says what was read, and --typed\nwhat a person has typed.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		l, err := client.List(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		p, err := client.Proposal(cmd.Context(), l.Proposal)
		if err != nil {
			return err
		}
		if digest == "" || words == "" {
			if !isTerminal(cmd.InOrStdin()) {
				return &usageError{command: "mailcutover list approve", err: withHint(errors.New("what is approved isn't named, or nothing was typed"),
					"read mailcutover operation show "+p.ID+", then say --digest with what it prints, and --typed")}
			}
			printProposal(cmd.ErrOrStderr(), p)
			fmt.Fprint(cmd.ErrOrStderr(), "\nType the number of mailboxes, or the agency, to approve it: ")
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read what was typed: %w", err)
			}
			digest, words = p.Digest, strings.TrimSpace(line)
		}
		if p, err = client.ApproveTyped(cmd.Context(), p.ID, digest, words, note); err != nil {
			return err
		}
		return c.show(cmd, p, func(w io.Writer) {
			fmt.Fprintf(w, "list %s of agency %s, proposed by %s, is approved by you; missing: %d\n", l.ID, l.Agency, printable(p.Person), p.Missing)
			if p.Missing == 0 {
				fmt.Fprintf(w, "next: mailcutover list activate %s\n", l.ID)
			}
			fmt.Fprintln(w, "undo: there is none; who proposed it withdraws it")
		})
	})
	cmd.Flags().StringVar(&digest, "digest", "", "of the proposal as you have read it")
	cmd.Flags().StringVar(&words, "typed", "", "the number of mailboxes, or the agency")
	cmd.Flags().StringVar(&note, "note", "", "for the audit log")
	return cmd
}

func newListActivate(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "activate LIST", Short: "Bring an approved list into force", Args: cobra.ExactArgs(1),
		Long: "Bring an approved list into force. If it only adds, that is one change of the table. If it changes\nanswers, its agencies have to be armed, and are closed for a moment: an operation of the kind remap.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		l, err := client.List(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.start(cmd, client, l.Proposal)
	})
}

func newListWithdraw(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "withdraw LIST", Short: "Take a list back: one's own proposal, or a list in force", Args: cobra.ExactArgs(1),
		Long: "Take a list back. One that is only proposed, its proposer withdraws. One that is in force counts\nno more: what is routed stays, and the agency isn't cut over until another list names its mailboxes.",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		l, err := client.WithdrawList(cmd.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return c.show(cmd, l, func(w io.Writer) {
			fmt.Fprintf(w, "list %s of agency %s is %s\nundo: generate another one, and propose that\n", l.ID, l.Agency, l.Standing)
		})
	})
	addReason(cmd, &reason)
	return cmd
}

func newListDrift(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{Use: "drift --agency AGENCY", Short: "How the directory differs from an agency's mailboxes and lists", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			d, err := client.Drift(cmd.Context(), agency)
			if err != nil {
				return err
			}
			return c.show(cmd, d, func(w io.Writer) {
				if len(d.Drift) == 0 {
					fmt.Fprintf(w, "agency %s: directory, table and lists say the same\n", agency)
					return
				}
				var rows [][]string
				for _, one := range d.Drift {
					rows = append(rows, []string{one.Kind, yesNo(one.Blocks), one.Mailbox, one.Text})
				}
				table(w, []string{"DRIFT", "BLOCKS A CUTOVER", "DIRECTORY ID", "WHAT"}, rows)
			})
		})
	cmd.Flags().StringVar(&agency, "agency", "", "the agency (required)")
	require(cmd, "agency")
	return cmd
}
