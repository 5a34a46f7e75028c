"use strict";
// What only works with a script is shown. The button with the id "motion" starts and stops all previews, which stand
// still for whoever asks for less motion.
{
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  const button = document.getElementById("motion");
  const show = (paused) => {
    document.documentElement.className = paused ? "paused" : "playing";
    if (button) button.textContent = paused ? "Play previews" : "Pause previews";
  };
  show(matchMedia("(prefers-reduced-motion: reduce)").matches);
  if (button) button.addEventListener("click", () => show(document.documentElement.className === "playing"));
}
