// The page as it is now, every few seconds: the same document again, whose main part takes the place of this one's.
const away = document.getElementById("away");
const turn = async () => {
  // Somebody marks a text to copy it.
  if (!document.hidden && getSelection().isCollapsed) {
    try {
      const answer = await fetch("/");
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.title = page.title;
      away.hidden = true;
    } catch {
      away.hidden = false;
    }
  }
  setTimeout(turn, 5000);
};
setTimeout(turn, 5000);
