// Package jinja renders the chat templates of models: the part of the Jinja
// language that they use, with the semantics of Python that they rely on (the order
// of dicts, str and repr, json.dumps, string methods, slices), as transformers
// renders them. That means trim_blocks and lstrip_blocks, break and continue,
// {% generation %} blocks whose ranges become loss masks, and a sandbox: a template
// cannot change what it is given, reads no files and includes nothing.
//
// Templates come with files from anywhere. Parsing and rendering are bounded in
// nesting, steps, output and length of ranges; a template that goes beyond is an
// error, never a panic or an endless loop. A parsed [Template] is immutable and safe
// for concurrent use.
//
//	t, err := jinja.Parse(source)
//	chat := &jinja.Chat{Template: t, Tokens: map[string]string{"bos_token": "<s>"}}
//	messages, err := jinja.FromJSON([]byte(`[{"role": "user", "content": "Hi"}]`))
//	out, err := chat.Render(jinja.ChatInput{Messages: messages.(*jinja.List), Generate: true})
package jinja
