// Checks pages in Debian's Chromium and prints their problems, one line of JSON for each page. The
// job is JSON on standard input:
//
//	{chromium, arguments, tabs,
//	 pages: [{name, address, printed, view, scriptless, shots, shown, destination}],
//	 views: [{scheme, forced, width, walk}]}
//
// A line is {name, problems: [{check, where, what}]}.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { HtmlValidate } from 'html-validate';
import { chromium } from 'playwright-core';

const job = JSON.parse(await text(process.stdin));
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const html = new HtmlValidate({
	extends: ['html-validate:recommended'],
	rules: {
		'doctype-style': 'off', // templ writes it in lowercase
		'void-style': 'off', // both styles are valid HTML
		'form-dup-name': ['error', { shared: ['radio', 'checkbox', 'submit', 'button'] }], // several boxes may have one name
	},
});
const height = 900;

const browser = await chromium.launch({ executablePath: job.chromium, args: job.arguments, chromiumSandbox: false });
try {
	const waiting = [...job.pages];
	await Promise.all(Array.from({ length: job.tabs }, async () => {
		const context = await browser.newContext({ reducedMotion: 'reduce', viewport: { width: 1280, height } });
		const plain = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1280, height } });
		// A new tab is a new process, so all pages use these two tabs.
		const tab = await context.newPage();
		const bare = await plain.newPage();
		let problems;
		const report = (check, where, what) => problems.push({ check, where, what });
		for (const t of [tab, bare]) {
			t.on('console', (message) => {
				if (['error', 'warning'].includes(message.type())) report('console', message.location().url, message.text());
			});
			t.on('pageerror', (error) => report('console', t.url(), String(error)));
			t.on('requestfailed', (request) => {
				const error = request.failure()?.errorText ?? 'failed';
				// The next page cancels what is still loading, such as the icon.
				if (error !== 'net::ERR_ABORTED') report('console', request.url(), error);
			});
		}
		for (let page; (page = waiting.shift()); ) {
			problems = [];
			try {
				if (page.shots) await shoot(tab, page);
				else if (page.destination) await follow(bare, page, report);
				else await look(tab, bare, page, report);
			} catch (error) {
				report('look', '', String(error.stack));
			}
			console.log(JSON.stringify({ name: page.name, problems }));
		}
	}));
} finally {
	await browser.close();
}

async function look(tab, bare, { address, printed, view: only, scriptless }, report) {
	const response = await tab.goto(address);

	const { results } = await html.validateString(await response.text());
	for (const { messages } of results) {
		for (const m of messages) report('html', `${m.line}:${m.column} ${m.selector ?? ''}`, `${m.ruleId}: ${m.message}`);
	}

	// The page's policy does not apply to the scripts of a test, but a script cannot load anything
	// from another site.
	await tab.evaluate(axe);
	for (const view of only === undefined ? job.views : [job.views[only]]) {
		const where = `${view.scheme}${view.forced ? ' forced' : ''} ${view.width}`;
		await tab.setViewportSize({ width: view.width, height });
		await tab.emulateMedia({ media: 'screen', colorScheme: view.scheme, forcedColors: view.forced ? 'active' : 'none' });
		for (const [check, what] of await tab.evaluate(measure)) report(check, where, what);
		for (const [check, what] of await tab.evaluate(shapes, Boolean(view.forced))) report(check, where, what);
		for (const what of await tab.evaluate(runAxe)) report('axe', where, what);
		if (view.walk) await walk(tab, where, report);
	}
	await tab.setViewportSize({ width: 1280, height });
	for (const what of await tab.evaluate(brokenWords)) report('word', '1280', what);
	if (printed) await print(tab, printed, report);
	if (scriptless) await withoutScript(tab, bare, address, report);
}

// follow selects the button of a page's form and checks where it leads.
async function follow(bare, { address, destination }, report) {
	await bare.goto(address);
	await bare.locator('main form button').click();
	await bare.waitForURL(destination, { timeout: 3000 }).catch(() => report('destination', address, `the form led to ${bare.url()}`));
}

// shoot takes screenshots of the top of a page.
async function shoot(tab, { address, shots, shown }) {
	await tab.setViewportSize({ width: 1280, height: shown });
	for (const [colorScheme, path] of Object.entries(shots)) {
		await tab.emulateMedia({ colorScheme });
		await tab.goto(address);
		await tab.screenshot({ path });
	}
}

// runAxe runs axe in the page.
async function runAxe() {
	await Promise.all(document.getAnimations().map((a) => a.finished));
	// preload is off, because the page's policy lets no script load the stylesheet again.
	const { violations } = await axe.run(document, { preload: false, resultTypes: ['violations'] });
	return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(' ')}: ${n.failureSummary.replaceAll('\n', ' ')}`));
}

// measure runs in the page. It checks whether the page fits the window and whether targets are
// large enough.
function measure() {
	const problems = [];
	const root = document.documentElement;
	if (root.scrollWidth > innerWidth) {
		const wide = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).slice(0, 3);
		const elements = wide.map((e) => e.outerHTML.slice(0, 120)).join(' | ');
		problems.push(['width', `${root.scrollWidth} px in a window of ${innerWidth}; too wide: ${elements}`]);
	}
	for (const e of document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')) {
		if (!e.checkVisibility({ visibilityProperty: true })) continue;
		// The skip link is measured when it has the focus; see walk.
		if (e.matches('a[href="#main"]')) continue;
		// If a field is in a label, the label is part of the target.
		const box = (e.closest('label') ?? e).getBoundingClientRect();
		if (box.width >= 23.99 && box.height >= 23.99) continue;
		// A link in a sentence may be as high as its line (WCAG 2.5.8, inline).
		if (e.tagName === 'A' && getComputedStyle(e).display === 'inline') {
			let block = e.parentElement;
			while (getComputedStyle(block).display === 'inline') block = block.parentElement;
			if (block.textContent.trim() !== e.textContent.trim()) continue;
		}
		problems.push(['target', `${box.width.toFixed(1)}x${box.height.toFixed(1)}: ${e.outerHTML.slice(0, 160)}`]);
	}
	return problems;
}

// shapes runs in the page. It checks tables, selected boxes and charts.
function shapes(forced) {
	const problems = [];
	const seen = (e) => e.checkVisibility({ visibilityProperty: true });
	const short = (e) => e.outerHTML.slice(0, 120);

	// A table that scrolls has a hint, and its first column and its buttons stay in view. A table that
	// fits has no hint.
	for (const region of document.querySelectorAll('.scroll-x')) {
		if (!seen(region)) continue;
		const scrolls = region.scrollWidth > region.clientWidth;
		const hint = region.querySelector('.scroll-hint');
		if (scrolls !== (hint !== null && seen(hint))) {
			problems.push(['table', `${scrolls ? 'scrolls without a hint' : 'fits, but has a hint'}: ${short(region)}`]);
		}
		for (const left of scrolls ? [0, region.scrollWidth] : []) {
			region.scrollLeft = left;
			const frame = region.getBoundingClientRect();
			for (const e of region.querySelectorAll('tr > :first-child, tbody button, tbody .btn')) {
				const box = e.getBoundingClientRect();
				if (seen(e) && (box.left < frame.left - 1 || box.right > frame.right + 1)) {
					problems.push(['table', `not in view when scrolled to ${left}: ${short(e)}`]);
				}
			}
			region.scrollLeft = 0;
		}
	}

	// A selected box has enough contrast with its background (WCAG 1.4.11).
	const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
	const light = (color) => {
		context.clearRect(0, 0, 1, 1);
		context.fillStyle = color;
		context.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
		const linear = [r, g, b].map((v) => (v /= 255, v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
		return { alpha: a, y: 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], gray: Math.max(r, g, b) - Math.min(r, g, b) < 40 };
	};
	for (const box of forced ? [] : document.querySelectorAll('input[type=checkbox]:checked')) {
		let around = box.parentElement;
		while (around.parentElement && light(getComputedStyle(around).backgroundColor).alpha === 0) around = around.parentElement;
		const [a, b] = [box, around].map((e) => light(getComputedStyle(e).backgroundColor));
		const ratio = (Math.max(a.y, b.y) + 0.05) / (Math.min(a.y, b.y) + 0.05);
		if (a.alpha === 0 || ratio < 3 || a.gray) problems.push(['box', `looks disabled, with a contrast of ${ratio.toFixed(1)}: ${short(box)}`]);
	}

	// A number on a chart touches no line and no other number. A digit is 3 pixels smaller than its
	// box at the top and bottom.
	for (const chart of document.querySelectorAll('svg.plot')) {
		const top = chart.getBoundingClientRect().top;
		const numbers = [...chart.querySelectorAll('text.strong')].filter(seen).map((e) => ({ e, box: e.getBoundingClientRect() }));
		for (const [i, { e, box }] of numbers.entries()) {
			for (const line of chart.querySelectorAll('.c-pace, .c-limit, .c-past, .c-grid')) {
				const y = top + Number(line.getAttribute('y1'));
				const { left, right } = line.getBoundingClientRect();
				if (y > box.top + 3 && y < box.bottom - 3 && left < box.right && right > box.left) {
					problems.push(['chart', `${e.textContent} is on a line: ${short(line)}`]);
				}
			}
			for (const { e: other, box: its } of numbers.slice(0, i)) {
				if (its.left < box.right && its.right > box.left && its.top + 3 < box.bottom - 3 && its.bottom - 3 > box.top + 3) {
					problems.push(['chart', `${e.textContent} is on ${other.textContent}`]);
				}
			}
		}
	}
	return problems;
}

// brokenWords runs in the page, in a wide window. It finds emails of up to 40 characters that do not
// stay in one line of their table.
function brokenWords() {
	const problems = [];
	for (const cell of document.querySelectorAll('.data td, .data th')) {
		if (!cell.checkVisibility({ visibilityProperty: true })) continue;
		const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
		for (let text; (text = texts.nextNode()); ) {
			for (const { 0: word, index } of text.data.matchAll(/\S+@\S+/g)) {
				const range = document.createRange();
				range.setStart(text, index);
				range.setEnd(text, index + word.length);
				const lines = new Set([...range.getClientRects()].map((line) => line.top));
				if (word.length <= 40 && lines.size > 1) problems.push(`${word} is broken: ${cell.outerHTML.slice(0, 120)}`);
			}
		}
	}
	return problems;
}

// walk uses the page with only the keyboard.
async function walk(tab, where, report) {
	const expected = await tab.evaluate(() => {
		// Tab continues from the last focus. This sets it to the top.
		const top = document.createElement('i');
		top.tabIndex = -1;
		document.body.prepend(top);
		top.focus();
		top.remove();
		window.watched ??= !document.addEventListener('focusin', ({ target }) => {
			window.walked.push(target);
			// The element around a field may show the outline.
			const shown = [target, target.parentElement].some((e) => {
				const { outlineStyle, outlineWidth } = getComputedStyle(e);
				return outlineStyle !== 'none' && parseFloat(outlineWidth) > 0;
			});
			if (!shown) window.unseen.push(target.outerHTML.slice(0, 160));
		});
		window.walked = [];
		window.unseen = [];
		const candidates = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
		window.reachable = [...document.querySelectorAll(candidates)].filter((e) => {
			if (e.disabled || !e.checkVisibility({ visibilityProperty: true })) return false;
			if (e.type !== 'radio') return true;
			// Tab reaches the selected button of a form's group, or else the first one. Arrow keys reach the
			// others.
			const group = [...document.getElementsByName(e.name)].filter((r) => r.type === 'radio' && r.form === e.form);
			return e === (group.find((r) => r.checked) ?? group[0]);
		});
		return window.reachable.length;
	});

	await tab.keyboard.press('Tab');
	const skip = await tab.evaluate(() => {
		const e = document.activeElement;
		const box = e.getBoundingClientRect();
		const seen = box.width >= 24 && box.height >= 24 && box.left >= 0 && box.top >= 0 && box.right <= innerWidth;
		if (!e.matches('a[href="#main"]')) return `the first element is ${e.outerHTML.slice(0, 120)}`;
		return seen ? '' : `the skip link is not visible: ${box.width}x${box.height}`;
	});
	if (skip) report('skip', where, skip);

	for (let i = 1; i < expected + 2; i++) await tab.keyboard.press('Tab');
	const { missed, unseen } = await tab.evaluate(() => ({
		missed: window.reachable.filter((e) => !window.walked.includes(e)).map((e) => e.outerHTML.slice(0, 160)),
		unseen: [...new Set(window.unseen)],
	}));
	for (const what of missed) report('keyboard', where, `not reached by Tab: ${what}`);
	for (const what of unseen) report('focus', where, `the focus is not visible: ${what}`);

	if (!skip) {
		await tab.evaluate(() => document.querySelector('a[href="#main"]').focus());
		await tab.keyboard.press('Enter');
		await tab.keyboard.press('Tab');
		const past = await tab.evaluate(() => {
			const main = document.getElementById('main');
			const inMain = window.reachable.some((e) => main.contains(e));
			if (!inMain || main.contains(document.activeElement)) return '';
			return `the skip link leads to ${document.activeElement.outerHTML.slice(0, 120)}`;
		});
		if (past) report('skip', where, past);
	}
}

// print checks the printed page: it has the period, and every table that is collapsed on a screen.
async function print(tab, printed, report) {
	await tab.emulateMedia({ media: 'print', colorScheme: 'light', forcedColors: 'none' });
	const missing = await tab.evaluate((printed) => {
		const missing = [];
		const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height > 0;
		const rows = [...document.querySelectorAll('main tr')];
		if (rows.length === 0) missing.push('there is no table');
		for (const e of rows) if (!seen(e)) missing.push(`not on paper: ${e.outerHTML.slice(0, 120)}`);
		if (!document.body.innerText.includes(printed)) missing.push(`not on paper: ${printed}`);
		for (const e of document.querySelectorAll('nav, button')) {
			if (seen(e)) missing.push(`printed, but useless on paper: ${e.outerHTML.slice(0, 120)}`);
		}
		return missing;
	}, printed);
	for (const what of missing) report('print', 'print', what);
}

// withoutScript compares the page's text with and without JavaScript, including collapsed parts.
async function withoutScript(tab, bare, address, report) {
	const said = () => document.body.innerText.replace(/\s+/g, ' ');
	await tab.emulateMedia({ media: 'screen', colorScheme: 'light', forcedColors: 'none' });
	await tab.setViewportSize({ width: 1280, height });
	await bare.goto(address);
	const unfold = () => document.querySelectorAll('main details:not([open]) > summary').forEach((e) => e.click());
	await bare.evaluate(unfold);
	await tab.evaluate(unfold);
	// The hint of a table changes some frames after the width does, later on a busy machine.
	const differ = async () => (await bare.evaluate(said)) !== (await tab.evaluate(said));
	let tries = 20;
	while (tries > 0 && (await differ())) {
		tries--;
		await tab.waitForTimeout(100);
	}
	if (tries === 0) report('script', '', 'the text differs without JavaScript');
	if (await bare.evaluate(() => document.querySelectorAll('main details:not([open])').length)) {
		report('script', '', 'a part cannot be expanded without JavaScript');
	}
	if (await bare.evaluate(() => document.body.innerText.trim() === '')) report('script', '', 'the page is empty without JavaScript');
}
