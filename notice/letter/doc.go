// Package letter writes events as mail for people.
//
// A letter bundles events: what many agencies go through in a minute is one letter. Its subject and
// text are made by templates ([Templates]) in English or German, those of the program or of a
// directory that takes their place. It is marked as made by a program (RFC 3834 section
// 5), and its Message-ID is made of the events' ids, so that one that is sent twice is known as one.
//
// It promises that nothing in an event, such as somebody's reason or a hostile name, adds a
// header or a part: line ends and control characters become spaces, headers are encoded as RFC 2047
// has it, the text is quoted-printable UTF-8. Templates make plain text only. No content of
// anybody's mail is in an event, so none is in a letter.
//
// The package is pure but for [ReadTemplates]; its values don't change and are safe for
// concurrent use. What carries a letter is the caller's.
package letter
